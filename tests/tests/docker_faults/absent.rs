//! The engine is not there: at Bay's start, for a while, under load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bay_tests::Bay;
use serde_json::json;

use crate::common::{NOTICED, on, readiness, until_ready};
use crate::private::Private;

/// What a call may be told while the engine is away, or its containers with it.
const AWAY: [(u16, &str); 3] = [(503, "unavailable"), (503, "session_not_ready"), (502, "runtime_error")];

#[test]
fn bay_starts_without_an_engine_says_so_and_recovers_by_itself() {
    let mut engine = Private::new(false);
    let began = Instant::now();
    let bay = Bay::start(on(&engine.host(), "socket"));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let api = bay.api();
    let (status, ready) = readiness(&bay);
    assert_eq!((status, &ready["status"]), (503, &json!("not_ready")), "{ready}");
    let driver = &ready["parts"]["driver"];
    assert_eq!(driver["ok"], false, "{ready}");
    assert!(driver["reason"].as_str().is_some_and(|why| !why.is_empty()), "{ready}");
    assert_eq!(ready["parts"]["store"]["ok"], true, "{ready}");
    assert_eq!(
        bay.anonymous().get("/ready").try_send().expect("an answer").expect(503),
        json!({ "status": "not_ready" })
    );

    // What needs no sandbox goes on; what needs one says what is missing, every time, and soon.
    let sandbox = api.sandbox(json!({ "start": "lazy" }));
    for _ in 0..3 {
        let asked = Instant::now();
        let error = sandbox.post("shell/exec", &json!({ "command": "true" })).error(503, "unavailable");
        assert_eq!(
            (&error["details"]["part"], &error["retryable"]),
            (&json!("driver"), &json!(true)),
            "{error}"
        );
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }
    assert_eq!(sandbox.show()["status_reason"]["code"], "unavailable");
    let gone = api.sandbox(json!({ "start": "lazy" }));
    gone.call("DELETE", "").limit(NOTICED).try_send().expect("an answer");

    engine.start();
    engine.load_image();
    until_ready(&bay, 200);
    assert_eq!(sandbox.shell_ok("echo back"), "back");
}

#[test]
fn sandboxes_outlive_a_bay_that_came_back_before_its_engine() {
    let mut engine = Private::new(true);
    engine.start();
    engine.load_image();
    let mut bay = Bay::start(on(&engine.host(), "socket"));
    let kept = bay.api().sandbox(json!({}));
    kept.python_ok("x = 41");
    let deleted = bay.api().sandbox(json!({ "profile": "shell-only" }));
    deleted.unharmed();
    let stopped = bay.api().sandbox(json!({ "profile": "shell-only" }));
    stopped.unharmed();
    bay.terminate();
    engine.stop();

    bay.start_again();
    let (status, ready) = readiness(&bay);
    assert_eq!(status, 503, "{ready}");
    let error = kept.post("python/exec", &json!({ "code": "x" })).error(503, "unavailable");
    assert_eq!(error["details"]["part"], "driver", "{error}");
    assert_eq!(kept.show()["status"], "ready", "an engine that is away is no reason to call it lost");
    // Asked for now, done when it can be done.
    deleted.call("DELETE", "").error(503, "unavailable");
    deleted.call("GET", "").error(404, "not_found");
    stopped.post("stop", &json!({})).error(503, "unavailable");

    engine.start();
    until_ready(&bay, 200);
    assert_eq!(kept.python_ok("x + 1"), "42");
    assert_eq!(kept.python("x")["session_seq"], 1);
    stopped.unharmed();
    assert_eq!(stopped.shell("true")["session_seq"], 2, "the stop was carried out");
    bay_tests::until("what was deleted is gone", NOTICED, || {
        (bay.containers().expect("a Bay on Docker").all().len() == 2).then_some(())
    });
}

#[test]
fn an_engine_that_is_restarted_under_load_takes_its_sandboxes_with_it_and_nothing_else() {
    let mut engine = Private::new(false);
    engine.start();
    engine.load_image();
    let bay = Bay::start(on(&engine.host(), "socket"));
    let sandboxes: Vec<_> = (0..3).map(|_| bay.api().sandbox(json!({ "profile": "shell-only" }))).collect();
    for sandbox in &sandboxes {
        sandbox.write("kept.txt", "kept");
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for sandbox in &sandboxes {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let call = sandbox.post("shell/exec", &json!({ "command": "sleep 0.1", "timeout": 5 }));
                    let answer = call.send();
                    // 202: still under way, as far as anybody can tell.
                    if ![200, 202].contains(&answer.status) {
                        let body = answer.json();
                        let got = (answer.status, body["error"]["code"].as_str().unwrap_or_default());
                        assert!(AWAY.contains(&got), "{body}");
                    }
                }
            });
        }
        let stopping = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            engine.stop();
            let ready = until_ready(&bay, 503);
            assert_eq!(ready["parts"]["driver"]["ok"], false, "{ready}");
            let error =
                sandboxes[0].post("shell/exec", &json!({ "command": "true" })).error(503, "unavailable");
            assert_eq!(error["details"]["part"], "driver", "{error}");
            engine.start();
            until_ready(&bay, 200);
        }));
        over.store(true, Ordering::SeqCst);
        if let Err(panic) = stopping {
            std::panic::resume_unwind(panic);
        }
    });
    for sandbox in &sandboxes {
        bay_tests::until("the next call recovers", NOTICED, || {
            let answer = sandbox.post("shell/exec", &json!({ "command": "cat kept.txt" })).send();
            (answer.status == 200).then(|| assert_eq!(answer.json()["stdout"], "kept"))
        });
    }
    assert_eq!(bay.containers().expect("a Bay on Docker").all().len(), 3);
}
