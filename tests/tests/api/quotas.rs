//! What a tenant may have and how often it may ask; what another has makes no difference.

use std::time::Duration;

use bay_tests::http::Response;
use bay_tests::{Bay, Options, until};
use serde_json::{Value, json};

/// A Bay with tenants `acme` and `other`, of which `acme` has a file with this quota.
fn bay(quota: &str) -> Bay {
    let file = format!("id = \"acme\"\n[quota]\n{quota}\n");
    let mut options = Options::default().tenant("acme").tenant("other");
    options.files.push(("profiles/tenants/acme.toml".into(), file.into_bytes()));
    Bay::start(options)
}

fn lazy(name: &str) -> Value {
    json!({ "profile": "shell-only", "start": "lazy", "name": name })
}

/// Details of a refusal.
fn over(quota: &str, limit: u64, used: u64) -> Value {
    json!({ "quota": quota, "limit": limit, "used": used })
}

fn number(answer: &Response, header: &str) -> Option<u64> {
    answer.header(header).map(|value| value.parse().unwrap_or_else(|e| panic!("{header}: {value}: {e}")))
}

#[test]
fn sandboxes_are_counted_the_last_place_has_one_winner_and_a_deleted_one_gives_its_place_back() {
    let bay = bay("sandboxes = 3");
    let acme = bay.as_tenant("acme");
    let first = acme.sandbox(lazy("first"));
    let _second = acme.sandbox(lazy("second"));
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let create = |n: usize| {
            let acme = acme.clone();
            scope.spawn(move || acme.post("/v1/sandboxes", &lazy(&format!("racer {n}"))).send())
        };
        let racers: Vec<_> = (0..6).map(create).collect();
        racers.into_iter().map(|racer| racer.join().expect("a racer")).collect()
    });
    let won = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(won, 1, "{:?}", answers.iter().map(Response::brief).collect::<Vec<_>>());
    for lost in answers.iter().filter(|answer| answer.status != 201) {
        let error = lost.expect(429)["error"].clone();
        assert_eq!((&error["code"], &error["retryable"]), (&json!("quota_exceeded"), &json!(false)));
        assert_eq!(error["details"], over("sandboxes", 3, 3));
    }
    let _others = bay.as_tenant("other").sandbox(lazy("other"));
    drop(first);
    let _again = acme.sandbox(lazy("again"));
    // What was refused left nothing behind.
    assert_eq!(acme.list("/v1/sandboxes").len(), 3);
}

#[test]
fn starts_and_running_sandboxes_are_counted_and_stopping_gives_the_place_back() {
    let bay = bay("running = 1");
    let acme = bay.as_tenant("acme");
    let first = acme.sandbox(json!({ "profile": "shell-only", "start": "wait" }));
    let second = acme.sandbox(lazy("second"));
    let run =
        |id: &str| acme.post(&format!("/v1/sandboxes/{id}/shell/exec"), &json!({ "command": "echo hi" }));
    let error = run(&second.id).error(429, "quota_exceeded");
    assert_eq!(error["details"], over("running", 1, 1));
    acme.post(&format!("/v1/sandboxes/{}/stop", first.id), &json!({})).send().expect(200);
    assert_eq!(run(&second.id).send().expect(200)["output"], "hi\n");
    drop(second);
    assert_eq!(run(&first.id).send().expect(200)["output"], "hi\n");
}

#[test]
fn executions_are_counted_until_they_have_ended() {
    let bay = bay("executions = 1");
    let acme = bay.as_tenant("acme");
    let sandbox = acme.sandbox(json!({ "profile": "shell-only", "start": "wait" }));
    let place = format!("/v1/sandboxes/{}/shell/exec", sandbox.id);
    let long = json!({ "command": "until [ -e go ]; do sleep 0.05; done", "timeout": 60, "wait": 0 });
    acme.post(&place, &long).send().expect(202);
    let touch = json!({ "path": "go", "content": "" });
    let error = acme.post(&place, &json!({ "command": "true" })).error(429, "quota_exceeded");
    assert_eq!(error["details"], over("executions", 1, 1));
    // Files are no executions.
    acme.call("PUT", &format!("/v1/sandboxes/{}/filesystem/files", sandbox.id))
        .json(&touch)
        .send()
        .expect(200);
    until("the execution ends", Duration::from_secs(20), || {
        let answer = acme.post(&place, &json!({ "command": "true" })).send();
        (answer.status == 200).then_some(())
    });
}

#[test]
fn an_admin_sees_what_a_tenant_has_and_may_have() {
    let quota =
        "sandboxes = 5\nrunning = 2\nstreams = \"unlimited\"\nrequests_per_second = 1000\nburst = 2000";
    let mut options = Options::default();
    let file = format!("id = \"default\"\n[quota]\n{quota}\n");
    options.files.push(("profiles/tenants/default.toml".into(), file.into_bytes()));
    let bay = Bay::start(options);
    // The key of the first start: the tenant `default`, and every scope.
    let admin = bay.api();
    let sandbox = admin.sandbox(json!({ "profile": "shell-only", "start": "wait" }));
    let usage = admin.get("/v1/admin/tenants/default/usage").send().expect(200);
    assert_eq!(usage["tenant"], "default");
    let quota = |name: &str| usage["quotas"][name].clone();
    assert_eq!(quota("sandboxes"), json!({ "limit": 5, "used": 1 }));
    assert_eq!(quota("running"), json!({ "limit": 2, "used": 1 }));
    assert_eq!(quota("starting"), json!({ "limit": null, "used": 0 }));
    assert_eq!(quota("streams"), json!({ "limit": null, "used": 0 }));
    assert_eq!(
        quota("lockers"),
        json!({ "limit": null, "used": 0 }),
        "a managed locker counts with its sandbox"
    );
    assert_eq!((&usage["requests_per_second"], &usage["burst"]), (&json!(1000), &json!(2000)));
    drop(sandbox);
    let after = admin.get("/v1/admin/tenants/default/usage").send().expect(200);
    assert_eq!(after["quotas"]["sandboxes"]["used"], 0);
    assert_eq!(after["quotas"]["running"]["used"], 0);
    let other = admin.get("/v1/admin/tenants/other/usage").send().expect(200);
    assert_eq!(other["quotas"]["sandboxes"], json!({ "limit": null, "used": 0 }));
    assert_eq!(
        other["quotas"]["streams"],
        json!({ "limit": 256, "used": 0 }),
        "what holds where nothing is said"
    );
    assert_eq!(other["requests_per_second"], Value::Null);
    admin.get("/v1/admin/tenants/No%20One/usage").error(404, "not_found");
    bay.anonymous().get("/v1/admin/tenants/default/usage").error(401, "unauthorized");
}

#[test]
fn who_asks_too_often_waits_and_others_do_not() {
    let bay = bay("requests_per_second = 1\nburst = 3");
    let acme = bay.as_tenant("acme");
    let mut refused = None;
    for left in (0..3).rev() {
        let answer = acme.get("/v1/profiles").send();
        answer.expect(200);
        assert_eq!(number(&answer, "x-ratelimit-limit"), Some(3));
        let (remaining, reset) =
            (number(&answer, "x-ratelimit-remaining"), number(&answer, "x-ratelimit-reset"));
        // A slow machine may have won some back.
        assert!(remaining >= Some(left) && reset <= Some(3), "{remaining:?} {reset:?}");
    }
    // Refusals of other kinds count and carry the headers as well.
    for _ in 0..20 {
        let answer = acme.get("/v1/sandboxes/sbx_nothing").send();
        assert!(number(&answer, "x-ratelimit-remaining").is_some(), "{}", answer.brief());
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        answer.expect(404);
    }
    let refused = refused.expect("twenty requests at once, and none refused");
    let error = refused.expect(429)["error"].clone();
    assert_eq!((&error["code"], &error["retryable"]), (&json!("rate_limited"), &json!(true)));
    assert_eq!(number(&refused, "retry-after"), Some(1));
    assert_eq!(number(&refused, "x-ratelimit-remaining"), Some(0));
    let other = bay.as_tenant("other");
    for _ in 0..10 {
        let answer = other.get("/v1/profiles").send();
        answer.expect(200);
        assert_eq!(answer.header("x-ratelimit-limit"), None, "no limit, no headers");
    }
    bay.anonymous().get("/health").send().expect(200);
    until("a waiting tenant is let in again", Duration::from_secs(10), || {
        (acme.get("/v1/profiles").send().status == 200).then_some(())
    });
    // For the harness, which deletes what is left.
    std::fs::remove_file(bay.home().join("profiles/tenants/acme.toml")).expect("remove the tenant's file");
    until("the limit is gone", Duration::from_secs(10), || {
        acme.get("/v1/profiles").send().header("x-ratelimit-limit").is_none().then_some(())
    });
}
