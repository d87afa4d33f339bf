//! Making, listing, stopping and removing sandboxes.

use std::time::Duration;

use bay_tests::config::Profile;
use bay_tests::{Bay, Client, Options, Sandbox, form, soon, until};
use serde_json::{Value, json};

fn shell_only(extra: Value) -> Value {
    let mut body = json!({ "profile": "shell-only" });
    for (key, value) in extra.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

#[test]
fn a_sandbox_lives_from_create_to_delete() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let made = api
        .post(
            "/v1/sandboxes",
            &shell_only(json!({ "start": "lazy", "name": "one", "labels": { "team": "a/b.c" } })),
        )
        .send();
    let body = made.expect(201);
    let mut keys: Vec<_> = body.as_object().expect("an object").keys().cloned().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "capabilities",
            "containers",
            "created_at",
            "expires_at",
            "id",
            "idle_expires_at",
            "labels",
            "locker_id",
            "name",
            "profile",
            "session_seq",
            "status",
            "status_reason"
        ]
    );
    assert!(form::is_id("sbx_", body["id"].as_str().unwrap()), "{body}");
    assert!(form::is_id("lkr_", body["locker_id"].as_str().unwrap()), "{body}");
    assert!(form::is_time(body["created_at"].as_str().unwrap()), "{body}");
    assert_eq!(body["capabilities"], json!(["filesystem", "shell"]));
    assert_eq!((&body["status"], &body["session_seq"]), (&json!("idle"), &json!(0)));
    assert_eq!((&body["name"], &body["labels"]), (&json!("one"), &json!({ "team": "a/b.c" })));
    assert_eq!(
        (&body["expires_at"], &body["containers"], &body["status_reason"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let id = body["id"].as_str().unwrap();
    let place = format!("/v1/sandboxes/{id}");
    assert_eq!(api.get(&place).send().expect(200), body);

    // A lazy one is not ready because somebody waits for it.
    let waited = api.get(&place).query("wait", "ready").query("timeout", "1").send();
    assert_eq!(waited.expect(200)["status"], "idle");
    assert!(
        waited.took >= Duration::from_millis(900) && waited.took < Duration::from_secs(10),
        "{:?}",
        waited.took
    );

    let first =
        api.post(&format!("{place}/shell/exec"), &json!({ "command": "echo kept > f; echo lost > /tmp/f" }));
    assert_eq!(first.send().expect(200)["session_seq"], 1);
    running(&api, &place);

    for _ in 0..2 {
        let stopped = api.post(&format!("{place}/stop"), &json!({})).send().expect(200);
        assert_eq!(
            (&stopped["status"], &stopped["sandbox"]["status"]),
            (&json!("stopped"), &json!("idle")),
            "{stopped}"
        );
        assert!(soon(Duration::from_secs(5), || bay.processes().is_empty()), "{:?}", bay.processes());
    }
    let again = api
        .post(&format!("{place}/shell/exec"), &json!({ "command": "cat f; cat /tmp/f" }))
        .send()
        .expect(200);
    assert_eq!((&again["stdout"], &again["session_seq"]), (&json!("kept\n"), &json!(2)), "{again}");

    for _ in 0..2 {
        let gone = api.call("DELETE", &place).send();
        assert_eq!((gone.status, gone.body.len()), (204, 0));
    }
    api.get(&place).error(404, "not_found");
    api.post(&format!("{place}/shell/exec"), &json!({ "command": "true" })).error(404, "not_found");
    api.post(&format!("{place}/stop"), &json!({})).error(404, "not_found");
    assert!(api.list("/v1/sandboxes").is_empty());
}

fn running(api: &Client, place: &str) {
    let shown = api.get(place).query("probe", "true").send().expect(200);
    assert_eq!(shown["status"], "ready", "{shown}");
    let all = shown["containers"].as_array().expect("containers of a running sandbox");
    assert_eq!(all.len(), 1, "{shown}");
    let ship = &all[0];
    assert_eq!((&ship["name"], &ship["runtime"]), (&json!("ship"), &json!("ship")), "{shown}");
    assert_eq!((&ship["status"], &ship["healthy"]), (&json!("running"), &json!(true)), "{shown}");
    assert!(ship["version"].is_string(), "{shown}");
    assert!(form::is_time(ship["checked_at"].as_str().unwrap_or_default()), "{shown}");
    let listed = api.list("/v1/sandboxes");
    assert!(listed.iter().all(|s| s["containers"].is_null()), "{listed:?}");
}

#[test]
fn a_list_goes_newest_first_page_by_page_and_does_not_shift_when_one_is_made() {
    let bay = Bay::start(Options::default().tenant("acme"));
    let api = bay.api();
    let make = |n: usize| {
        let labels = json!({ "parity": (n % 2).to_string(), "n": n.to_string() });
        api.sandbox(json!({ "start": "lazy", "name": format!("s{n}"), "labels": labels,
                            "profile": if n < 3 { "shell-only" } else { "python-default" } }))
    };
    let mut all: Vec<Sandbox> = (0..5).map(make).collect();
    let page = |cursor: Option<&str>| {
        let call = api.get("/v1/sandboxes").query("limit", "2");
        match cursor {
            Some(cursor) => call.query("cursor", cursor),
            None => call,
        }
        .send()
        .expect(200)
    };
    let names = |v: &Value| -> Vec<String> {
        v["items"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = page(None);
    assert_eq!(names(&first), ["s4", "s3"]);
    all.push(make(5));
    let second = page(first["next_cursor"].as_str());
    assert_eq!(names(&second), ["s2", "s1"]);
    // The one at the cursor may go away too.
    drop(all.remove(1));
    let third = page(second["next_cursor"].as_str());
    assert_eq!((names(&third), &third["next_cursor"]), (vec!["s0".to_owned()], &Value::Null));

    let filtered = |query: &str| -> Vec<String> {
        api.list(&format!("/v1/sandboxes?{query}"))
            .iter()
            .map(|s| s["name"].as_str().unwrap().into())
            .collect()
    };
    assert_eq!(filtered("label=parity=1"), ["s5", "s3"]);
    assert_eq!(filtered("profile=shell-only"), ["s2", "s0"]);
    assert_eq!(filtered("profile=shell-only&label=n=2"), ["s2"]);
    assert_eq!(filtered("status=idle").len(), 5);
    assert!(filtered("status=ready").is_empty());
    // A cursor is the tenant's own.
    let stolen =
        bay.as_tenant("acme").get("/v1/sandboxes").query("cursor", first["next_cursor"].as_str().unwrap());
    let answer = stolen.send();
    assert!(answer.status == 400 || answer.json()["items"] == json!([]), "{}", answer.brief());
}

#[test]
fn many_first_calls_make_one_start() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(shell_only(json!({ "start": "lazy" })));
    let seqs: Vec<Value> = std::thread::scope(|s| {
        let calls: Vec<_> =
            (0..8).map(|_| s.spawn(|| sandbox.shell("echo $PPID")["session_seq"].clone())).collect();
        calls.into_iter().map(|c| c.join().expect("a call")).collect()
    });
    assert!(seqs.iter().all(|n| *n == json!(1)), "{seqs:?}");
    let inits = bay.processes().iter().filter(|p| p.is_init()).count();
    assert_eq!(inits, 1, "{:?}", bay.processes());
}

#[test]
fn start_says_when_the_answer_comes() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let waited = api.post("/v1/sandboxes", &shell_only(json!({ "start": "wait" }))).send().expect(201);
    assert_eq!((&waited["status"], &waited["session_seq"]), (&json!("ready"), &json!(1)), "{waited}");
    // Eager is the default: the start goes on behind the answer.
    let eager = api.sandbox(shell_only(json!({})));
    assert_eq!(eager.ready()["session_seq"], 1);
    // A delete while it starts cancels the start.
    let hasty = api.post("/v1/sandboxes", &json!({})).send().expect(201);
    let place = format!("/v1/sandboxes/{}", hasty["id"].as_str().unwrap());
    assert_eq!(api.call("DELETE", &place).send().status, 204);
    api.get(&place).error(404, "not_found");
    let locker = hasty["locker_id"].as_str().unwrap();
    assert!(
        soon(Duration::from_secs(10), || bay.processes_of(locker).is_empty()),
        "{:?}",
        bay.processes_of(locker)
    );
}

#[test]
fn a_ttl_ends_a_sandbox_and_never_passes_the_profiles() {
    let bounded = Profile::shell().named("bounded").with(json!({ "max_ttl": "1h" }));
    let bay = Bay::start(Options::default().profile(bounded));
    let api = bay.api();
    api.post("/v1/sandboxes", &json!({ "profile": "bounded", "ttl": 3601 })).bad_fields(&["ttl"]);
    for ttl in [json!(null), json!(0), json!(3600)] {
        let made = api.sandbox(json!({ "profile": "bounded", "start": "lazy", "ttl": ttl })).show();
        assert!(form::is_time(made["expires_at"].as_str().unwrap_or_default()), "ttl {ttl}: {made}");
    }
    let brief = api.sandbox(shell_only(json!({ "ttl": 2, "start": "wait" })));
    until("the sandbox is expired", Duration::from_secs(15), || {
        (brief.show()["status"] == "expired").then_some(())
    });
    let error = brief.post("shell/exec", &json!({ "command": "true" })).error(409, "sandbox_expired");
    assert_eq!(error["details"]["sandbox_id"], json!(brief.id), "{error}");
    assert!(form::is_time(error["details"]["expires_at"].as_str().unwrap_or_default()), "{error}");
}

#[test]
fn env_reaches_user_code_and_nobody_else() {
    let profile = Profile::shell().container(json!({ "env": { "FROM_PROFILE": "p", "BOTH": "profile" } }));
    let bay = Bay::start(Options::default().profile(profile));
    let secret = "s3cret-value-of-env";
    let body = shell_only(json!({ "env": { "TOKEN": secret, "BOTH": "client" } }));
    let made = bay.api().post("/v1/sandboxes", &body).send();
    assert!(!made.text().contains(secret), "{}", made.brief());
    let id = made.expect(201)["id"].as_str().unwrap().to_owned();
    let place = format!("/v1/sandboxes/{id}");
    let ran = bay
        .api()
        .post(&format!("{place}/shell/exec"), &json!({ "command": "echo $TOKEN $BOTH $FROM_PROFILE" }));
    assert_eq!(ran.send().expect(200)["stdout"], format!("{secret} client p\n"));
    for target in [place.clone(), "/v1/sandboxes".into()] {
        assert!(!bay.api().get(&target).send().text().contains(secret));
    }
    assert!(!bay.log().contains(secret), "the log shows a value of env");
    for process in bay.processes() {
        assert!(!process.cmdline.contains(secret), "{process:?}");
    }
}
