//! A container that somebody kills, pauses or removes, that runs out of memory, or whose image is not there.

use std::time::{Duration, Instant};

use bay_tests::driver::{connect, image};
use bay_tests::http::encode;
use bay_tests::{Bay, Engine, Profile, until};
use serde_json::json;

use crate::common::{NOTICED, on, only_id, order};

fn bay() -> Bay {
    Bay::start(on(&Engine::host(), &connect()))
}

#[test]
fn a_killed_container_is_known_at_once_and_the_next_call_has_a_new_one() {
    let bay = bay();
    let sandbox = bay.api().sandbox(json!({}));
    sandbox.write("kept.txt", "kept");
    let engine = Engine::of_tests();
    for (how, seq) in [("kill", 2), ("removal", 3)] {
        let id = only_id(&bay);
        match how {
            "kill" => engine.kill(&id),
            _ => order(&engine, "DELETE", &format!("/containers/{id}?force=true&v=true")),
        }
        let at = Instant::now();
        let shown = until("it is shown as failed", NOTICED, || {
            let shown = sandbox.show();
            (shown["status"] == "failed").then_some(shown)
        });
        assert!(at.elapsed() < Duration::from_secs(2), "{how}: known after {:?}", at.elapsed());
        assert_eq!(shown["status_reason"]["code"], "runtime_error", "{how}: {shown}");
        assert_eq!(sandbox.read("kept.txt"), "kept", "{how}");
        assert_eq!(sandbox.shell("true")["session_seq"], seq, "{how}");
        assert_ne!(only_id(&bay), id, "{how}");
    }
}

#[test]
fn a_call_under_way_when_its_container_dies_is_told_so() {
    let bay = bay();
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    sandbox.unharmed();
    let id = only_id(&bay);
    std::thread::scope(|scope| {
        let call =
            scope.spawn(|| sandbox.post("shell/exec", &json!({ "command": "touch began; sleep 50" })).send());
        until("it runs", NOTICED, || {
            let top = Engine::of_tests().get(&format!("/containers/{id}/top"));
            top.to_string().contains("sleep 50").then_some(())
        });
        Engine::of_tests().kill(&id);
        let answer = call.join().expect("the call");
        assert_eq!(answer.expect(502)["error"]["code"], "runtime_error");
        // Before Bay has heard of it: nothing ran, and the same call again is all it takes.
        let answer = sandbox.post("shell/exec", &json!({ "command": "true" })).send();
        if answer.status != 200 {
            assert_eq!(answer.expect(503)["error"]["code"], "session_not_ready");
        }
    });
    until("the next call recovers", NOTICED, || {
        let answer = sandbox.post("shell/exec", &json!({ "command": "true" })).send();
        (answer.status == 200).then(|| assert_eq!(answer.json()["session_seq"], 2))
    });
}

#[test]
fn running_out_of_memory_ends_the_code_or_the_session_and_never_the_sandbox() {
    let small = Profile::python().named("small").container(json!({ "resources": { "memory": "256m" } }));
    let bay = Bay::start(on(&Engine::host(), &connect()).profile(small));
    let sandbox = bay.api().sandbox(json!({ "profile": "small" }));
    sandbox.write("kept.txt", "kept");
    sandbox.python_ok("x = 1");
    let answer = sandbox.post("python/exec", &json!({ "code": "b = bytearray(b'x' * (1 << 30))" })).send();
    match answer.status {
        200 => assert_eq!(answer.json()["success"], false, "{}", answer.brief()),
        502 => assert_eq!(answer.json()["error"]["code"], "runtime_error"),
        other => panic!("{other}: {}", answer.brief()),
    }
    assert_eq!(sandbox.read("kept.txt"), "kept");
    until("Python is there again", NOTICED, || {
        let ran = sandbox.post("python/exec", &json!({ "code": "print(6 * 7)" })).send();
        (ran.status == 200 && ran.json()["output"].as_str().is_some_and(|o| o.trim() == "42")).then_some(())
    });
}

#[test]
fn a_container_that_ran_out_of_memory_as_a_whole_is_named_so() {
    // What lies in `/tmp` is memory that no kill gives back: when it fills all there is, the runtime is next.
    let own = json!({ "resources": { "memory": "64m" }, "docker": { "tmp": "512m" } });
    let bay =
        Bay::start(on(&Engine::host(), &connect()).profile(Profile::shell().named("small").container(own)));
    let sandbox = bay.api().sandbox(json!({ "profile": "small" }));
    sandbox.write("kept.txt", "kept");
    until("the container ended", NOTICED, || {
        // Any answer will do, and none is waited for long.
        let fill = json!({ "command": "cat /dev/zero >> /tmp/fill", "timeout": 5 });
        let _ = sandbox.post("shell/exec", &fill).limit(Duration::from_secs(15)).try_send();
        bay.log().contains(" session lost ").then_some(())
    });
    let log = bay.log();
    let lost = log.lines().find(|line| line.contains("session lost")).unwrap_or_default();
    assert!(lost.contains("out of memory"), "{lost}");
    until("the next call recovers", NOTICED, || {
        let answer = sandbox.file("kept.txt").send();
        (answer.status == 200).then(|| assert_eq!(answer.json()["content"], "kept"))
    });
}

#[test]
fn a_paused_container_is_known_at_once_and_loses_nothing() {
    let bay = bay();
    let sandbox = bay.api().sandbox(json!({}));
    sandbox.python_ok("x = 41");
    let engine = Engine::of_tests();
    let id = only_id(&bay);
    let healthy = |sandbox: &bay_tests::Sandbox| sandbox.show()["containers"][0]["healthy"].clone();
    assert_eq!(healthy(&sandbox), true);
    order(&engine, "POST", &format!("/containers/{id}/pause"));
    let at = Instant::now();
    until("it is shown as not well", NOTICED, || (healthy(&sandbox) == false).then_some(()));
    assert!(at.elapsed() < Duration::from_secs(1), "known after {:?}", at.elapsed());
    // No call waits for an answer that cannot come, whatever time it gives itself.
    for call in [
        sandbox.post("python/exec", &json!({ "code": "x", "timeout": 30 })),
        sandbox.file("none.txt"),
        sandbox.post("shell/exec", &json!({ "command": "true" })),
    ] {
        let answer = call.send();
        let error = answer.expect(503)["error"].clone();
        assert_eq!(error["code"], "unavailable", "{error}");
        assert_eq!(error["details"], json!({ "part": "container", "reason": "paused" }), "{error}");
        assert!(answer.took < Duration::from_secs(1), "{:?}", answer.took);
    }
    order(&engine, "POST", &format!("/containers/{id}/unpause"));
    until("it answers again", NOTICED, || {
        let ran = sandbox.post("python/exec", &json!({ "code": "print(x + 1)" })).send();
        (ran.status == 200).then(|| assert_eq!(ran.json()["output"].as_str().map(str::trim), Some("42")))
    });
    until("it is well again", NOTICED, || (healthy(&sandbox) == true).then_some(()));
    assert_eq!(only_id(&bay), id, "the same container, with what it knew");

    order(&engine, "POST", &format!("/containers/{id}/pause"));
    sandbox.call("POST", "stop").send().expect(200);
    assert_eq!(sandbox.shell("true")["session_seq"], 2);
    let id = only_id(&bay);
    order(&engine, "POST", &format!("/containers/{id}/pause"));
    let began = Instant::now();
    sandbox.call("DELETE", "").send().expect(204);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(bay.containers().expect("a Bay on Docker").all(), [] as [serde_json::Value; 0]);
}

#[test]
fn a_missing_image_is_named_and_a_start_after_it_came_works() {
    let (repository, tag) = ("bay/test-missing", format!("of-{}", std::process::id()));
    let missing = format!("{repository}:{tag}");
    let profile = Profile::shell().named("missing").container(json!({ "image": missing }));
    let bay = Bay::start(on(&Engine::host(), &connect()).profile(profile));
    let sandbox = bay.api().sandbox(json!({ "profile": "missing", "start": "wait" }));
    let shown = sandbox.show();
    assert_eq!(
        (&shown["status"], &shown["status_reason"]["code"]),
        (&json!("failed"), &json!("unavailable")),
        "{shown}"
    );
    let error = sandbox.post("shell/exec", &json!({ "command": "true" })).error(503, "unavailable");
    assert_eq!(error["details"]["part"], "image", "{error}");
    assert!(error["message"].as_str().is_some_and(|m| m.contains(&missing)), "{error}");
    assert_eq!(bay.containers().expect("a Bay on Docker").all(), [] as [serde_json::Value; 0]);

    let engine = Engine::of_tests();
    order(&engine, "POST", &format!("/images/{}/tag?repo={repository}&tag={tag}", encode(&image())));
    let recovered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sandbox.unharmed()));
    drop(sandbox);
    order(&engine, "DELETE", &format!("/images/{}", encode(&missing)));
    if let Err(panic) = recovered {
        std::panic::resume_unwind(panic);
    }
}
