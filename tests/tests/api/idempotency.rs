//! A POST that is repeated with its `Idempotency-Key`: one resource, one answer, whatever happens in between.

use std::time::Duration;

use bay_tests::config::Profile;
use bay_tests::{Bay, Options, Sandbox};
use serde_json::{Value, json};

fn lazy(name: &str) -> Value {
    json!({ "profile": "shell-only", "start": "lazy", "name": name })
}

fn replayed(answer: &bay_tests::http::Response) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

#[test]
fn a_repeat_is_answered_byte_for_byte_and_makes_nothing_even_after_a_restart() {
    let mut bay = Bay::start(Options::default());
    let api = bay.api();
    let create =
        |key: &str, body: &Value| api.post("/v1/sandboxes", body).header("Idempotency-Key", key).send();
    let first = create("one", &lazy("a"));
    assert_eq!((first.status, replayed(&first)), (201, false), "{}", first.brief());
    // The object changes; the stored answer does not.
    let place = format!("/v1/sandboxes/{}", first.json()["id"].as_str().unwrap());
    api.call("PATCH", &place).json(&json!({ "name": "renamed" })).send().expect(200);
    for restart in [false, true] {
        if restart {
            bay.kill();
            bay.start_again();
        }
        let again = create("one", &json!({ "start": "lazy", "name": "a", "profile": "shell-only" }));
        assert_eq!((again.status, replayed(&again)), (201, true), "{}", again.brief());
        assert_eq!(again.body, first.body);
        assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
        assert_eq!(again.header("content-type"), first.header("content-type"));
    }
    assert_eq!(api.list("/v1/sandboxes").len(), 1);
    // It is replayed even when what it made is gone.
    assert_eq!(api.call("DELETE", &place).send().status, 204);
    assert!(replayed(&create("one", &lazy("a"))));
    assert!(api.list("/v1/sandboxes").is_empty());
}

#[test]
fn a_key_belongs_to_its_tenant_path_and_body() {
    let bay = Bay::start(Options::default().tenant("acme"));
    let (api, other) = (bay.api(), bay.as_tenant("acme"));
    let made = api.post("/v1/sandboxes", &lazy("a")).header("Idempotency-Key", "k").send().expect(201);
    let reused = api.post("/v1/sandboxes", &lazy("b")).header("Idempotency-Key", "k");
    let error = reused.error(409, "conflict");
    assert_eq!(error["retryable"], false, "{error}");
    let theirs = other.post("/v1/sandboxes", &lazy("a")).header("Idempotency-Key", "k").send();
    assert!(theirs.status == 201 && !replayed(&theirs), "{}", theirs.brief());
    assert_ne!(theirs.json()["id"], made["id"]);
    // What was refused left its key free, for any body.
    let refused = json!({ "profile": "nowhere" });
    api.post("/v1/sandboxes", &refused).header("Idempotency-Key", "free").error(404, "not_found");
    api.post("/v1/sandboxes", &json!({ "ttl": -1 })).header("Idempotency-Key", "free").bad_fields(&["ttl"]);
    let then = api.post("/v1/sandboxes", &lazy("c")).header("Idempotency-Key", "free").send();
    assert!(then.status == 201 && !replayed(&then), "{}", then.brief());

    let long = "x".repeat(256);
    for bad in ["", "two words", "tab\there", "ü", &long] {
        let call = api.post("/v1/sandboxes", &lazy("d")).header("Idempotency-Key", bad);
        call.bad_fields(&["Idempotency-Key"]);
    }
    let twice = api.post("/v1/sandboxes", &lazy("d"));
    twice.header("Idempotency-Key", "a").header("Idempotency-Key", "b").bad_fields(&["Idempotency-Key"]);
    let longest = api.post("/v1/sandboxes", &lazy("d")).header("Idempotency-Key", &long[1..]);
    longest.send().expect(201);
    assert_eq!(api.list("/v1/sandboxes").len(), 3);
}

#[test]
fn of_many_at_once_one_runs_and_the_others_wait_for_its_answer() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let body = json!({ "profile": "shell-only", "start": "wait" });
    let answers: Vec<_> = std::thread::scope(|s| {
        let calls: Vec<_> = (0..8)
            .map(|_| s.spawn(|| api.post("/v1/sandboxes", &body).header("Idempotency-Key", "k").send()))
            .collect();
        calls.into_iter().map(|c| c.join().expect("a call")).collect()
    });
    assert!(answers.iter().all(|a| a.status == 201 && a.body == answers[0].body), "{:?}", answers[0].brief());
    assert_eq!(answers.iter().filter(|a| !replayed(a)).count(), 1);
    assert_eq!(answers[0].json()["status"], "ready");
    assert_eq!(api.list("/v1/sandboxes").len(), 1);
}

#[test]
fn a_client_that_went_away_finds_what_its_key_made() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let body = json!({ "profile": "shell-only", "start": "wait" });
    let call = || api.post("/v1/sandboxes", &body).header("Idempotency-Key", "k");
    // Gone in the middle of the start, or before Bay had even read the request: the repeat cannot tell.
    drop(call().send_and_leave_unread());
    let again = call().send().expect(201);
    let all = api.list("/v1/sandboxes");
    assert_eq!((all.len(), &all[0]["id"]), (1, &again["id"]), "{all:?}");
    assert!(replayed(&call().send()));
}

#[test]
fn an_extension_with_a_key_counts_once() {
    let bay = Bay::start(
        Options::default().profile(Profile::shell().named("bounded").with(json!({ "max_ttl": "2h" }))),
    );
    let api = bay.api();
    let sandbox = api.sandbox(json!({ "profile": "bounded", "start": "lazy", "ttl": 600 }));
    let extend = |key: &str, by: u64| {
        sandbox.post("extend_ttl", &json!({ "extend_by": by })).header("Idempotency-Key", key)
    };
    let first = extend("k", 60).send();
    let again = extend("k", 60).send();
    assert_eq!((again.expect(200), replayed(&again)), (first.expect(200), true));
    assert_eq!(sandbox.show()["expires_at"], first.json()["expires_at"]);
    extend("k", 61).error(409, "conflict");
    // One that was refused is not kept: it is tried again.
    extend("far", 7200).bad_fields(&["extend_by"]);
    extend("far", 60).send().expect(200);
    // On another sandbox it is another key.
    let other = api.sandbox(json!({ "profile": "bounded", "start": "lazy", "ttl": 600 }));
    let theirs = other.post("extend_ttl", &json!({ "extend_by": 60 })).header("Idempotency-Key", "k").send();
    assert!(theirs.status == 200 && !replayed(&theirs), "{}", theirs.brief());
}

#[test]
fn where_any_repeat_is_as_good_a_key_does_no_harm() {
    let bay = Bay::start(Options::default());
    let sandbox: Sandbox = bay.api().sandbox(lazy("a"));
    for tail in ["keepalive", "stop", "recover"] {
        for _ in 0..2 {
            let answer = sandbox.post(tail, &json!({})).header("Idempotency-Key", "k").send();
            assert!(answer.status == 200 && !replayed(&answer), "{tail}: {}", answer.brief());
        }
        sandbox.post(tail, &json!({})).header("Idempotency-Key", "no good").bad_fields(&["Idempotency-Key"]);
    }
}

#[test]
fn a_key_is_forgotten_after_its_time() {
    let house = json!({ "housekeeping": { "every": "1s", "idempotency_keep": "1s" } });
    let bay = Bay::start(Options::default().config(house));
    let api = bay.api();
    let create = || api.post("/v1/sandboxes", &lazy("a")).header("Idempotency-Key", "k").send();
    assert!(!replayed(&create()));
    bay_tests::until("the key is new again", Duration::from_secs(10), || {
        (!replayed(&create())).then_some(())
    });
    assert_eq!(api.list("/v1/sandboxes").len(), 2);
}
