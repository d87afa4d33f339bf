//! What clients change of a sandbox that lives, and how it ends by itself.

use std::time::Duration;

use bay_tests::config::Profile;
use bay_tests::times::millis;
use bay_tests::{Bay, Client, Options, Sandbox, form, until};
use serde_json::{Value, json};

fn lazy(api: &Client, more: Value) -> Sandbox {
    let mut body = json!({ "profile": "shell-only", "start": "lazy" });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    api.sandbox(body)
}

fn patch(sandbox: &Sandbox, body: Value) -> bay_tests::api::Call {
    sandbox.call("PATCH", "").json(&body)
}

#[test]
fn a_hundred_extensions_at_once_all_count() {
    let bay = Bay::start(Options::default());
    let sandbox = lazy(&bay.api(), json!({ "ttl": 3600 }));
    let before = millis(&sandbox.show()["expires_at"]);
    std::thread::scope(|s| {
        for _ in 0..10 {
            s.spawn(|| {
                for _ in 0..10 {
                    sandbox.post("extend_ttl", &json!({ "extend_by": 7 })).send().expect(200);
                }
            });
        }
    });
    assert_eq!(millis(&sandbox.show()["expires_at"]) - before, 700_000);
}

#[test]
fn a_ttl_is_extended_only_where_there_is_one_and_not_past_its_bound() {
    let bounded = Profile::shell().named("bounded").with(json!({ "max_ttl": "1h" }));
    let bay = Bay::start(Options::default().profile(bounded).tenant("acme"));
    let api = bay.api();
    let forever = lazy(&api, json!({}));
    forever.post("extend_ttl", &json!({ "extend_by": 1 })).error(409, "sandbox_ttl_infinite");
    for bad in [json!({}), json!({ "extend_by": 0 }), json!({ "extend_by": -5 }), json!({ "extend_by": "1" })]
    {
        forever.post("extend_ttl", &bad).bad_fields(&["extend_by"]);
    }
    let brief = lazy(&api, json!({ "profile": "bounded", "ttl": 3500 }));
    let before = brief.show();
    brief.post("extend_ttl", &json!({ "extend_by": 101 })).bad_fields(&["extend_by"]);
    brief.post("extend_ttl", &json!({ "extend_by": 3_155_760_000_u64 })).bad_fields(&["extend_by"]);
    assert_eq!(brief.show(), before, "what was refused changed nothing");
    let longer = brief.post("extend_ttl", &json!({ "extend_by": 100 })).send().expect(200);
    assert_eq!(millis(&longer["expires_at"]) - millis(&before["created_at"]), 3_600_000);

    let place = format!("/v1/sandboxes/{}", brief.id);
    let other = bay.as_tenant("acme");
    for call in [
        other.post(&format!("{place}/extend_ttl"), &json!({ "extend_by": 1 })),
        other.post(&format!("{place}/keepalive"), &json!({})),
        other.post(&format!("{place}/recover"), &json!({})),
        other.post(&format!("{place}/stop"), &json!({})),
        other.call("PATCH", &place).json(&json!({ "name": "mine" })),
        other.call("DELETE", &place),
    ] {
        let error = call.error(404, "not_found");
        assert_eq!(error["details"], json!({ "resource": "sandbox", "id": brief.id }), "{error}");
    }
    assert_eq!(brief.show(), longer);
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let bay = Bay::start(Options::default());
    let sandbox = lazy(&bay.api(), json!({ "name": "one", "labels": { "a": "1", "b": "2" }, "ttl": 3600 }));
    let before = sandbox.show();
    assert_eq!(patch(&sandbox, json!({ "unknown": 1 })).send().expect(200), before);
    let body = json!({ "labels": { "a": null, "c": "3" } });
    let merged =
        sandbox.call("PATCH", "").body("application/merge-patch+json", body.to_string()).send().expect(200);
    assert_eq!(merged["labels"], json!({ "b": "2", "c": "3" }));
    assert_eq!((&merged["name"], &merged["expires_at"]), (&before["name"], &before["expires_at"]));
    let named = patch(&sandbox, json!({ "name": null, "labels": null })).send().expect(200);
    assert_eq!((&named["name"], &named["labels"]), (&Value::Null, &json!({})));
    assert_eq!(sandbox.show(), named);

    let many: serde_json::Map<_, _> = (0..32).map(|n| (format!("k{n}"), json!("v"))).collect();
    patch(&sandbox, json!({ "labels": many })).send().expect(200);
    patch(&sandbox, json!({ "labels": { "one-more": "v" } })).bad_fields(&["labels"]);
    patch(&sandbox, json!({ "labels": { "one-more": "v", "k0": null } })).send().expect(200);
    let wrong = json!({ "name": 1, "labels": { "bay.x": "1" }, "expires_at": "soon", "idle_timeout": 0 });
    patch(&sandbox, wrong).bad_fields(&["name", "labels", "expires_at", "idle_timeout"]);
    sandbox.call("PATCH", "").body("text/plain", "{}").error(415, "unsupported_media_type");
    // Two at once: neither loses what the other wrote.
    patch(&sandbox, json!({ "labels": null })).send().expect(200);
    std::thread::scope(|s| {
        for n in 0..8 {
            let sandbox = &sandbox;
            s.spawn(move || {
                patch(sandbox, json!({ "labels": { (format!("t{n}")): "v" } })).send().expect(200)
            });
        }
    });
    assert_eq!(sandbox.show()["labels"].as_object().map(serde_json::Map::len), Some(8));
}

#[test]
fn an_expiry_is_set_shortened_and_taken_away_within_the_profiles_bound() {
    let bounded = Profile::shell().named("bounded").with(json!({ "max_ttl": "1h" }));
    let bay = Bay::start(Options::default().profile(bounded));
    let api = bay.api();
    let free = lazy(&api, json!({}));
    let set = patch(&free, json!({ "expires_at": "2099-01-31T12:00:00+02:00" })).send().expect(200);
    assert_eq!(set["expires_at"], "2099-01-31T10:00:00.000Z");
    let never = patch(&free, json!({ "expires_at": null })).send().expect(200);
    assert_eq!(never["expires_at"], Value::Null);
    patch(&free, json!({ "expires_at": "2020-01-01T00:00:00Z" })).bad_fields(&["expires_at"]);
    patch(&free, json!({ "idle_timeout": 60 })).bad_fields(&["idle_timeout"]);

    let brief = lazy(&api, json!({ "profile": "bounded" }));
    patch(&brief, json!({ "expires_at": "2099-01-31T12:00:00Z" })).bad_fields(&["expires_at"]);
    patch(&brief, json!({ "expires_at": null })).bad_fields(&["expires_at"]);
    let created = brief.show()["created_at"].clone();
    let before = brief.show()["expires_at"].clone();
    assert_eq!(millis(&before) - millis(&created), 3_600_000);
    let shorter = in_seconds(&api, 1800);
    assert_eq!(patch(&brief, json!({ "expires_at": shorter })).send().expect(200)["expires_at"], shorter);
    // Its longest life counts from when it was made: it may be long again.
    assert_eq!(patch(&brief, json!({ "expires_at": before })).send().expect(200)["expires_at"], before);
}

#[test]
fn an_expiry_that_is_moved_moves_the_end_of_a_running_session() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let sandbox = api.sandbox(json!({ "profile": "shell-only", "start": "wait" }));
    assert_eq!(sandbox.show()["expires_at"], Value::Null);
    // A session that would run for ever ends two seconds from now.
    let soon = in_seconds(&api, 2);
    patch(&sandbox, json!({ "expires_at": soon })).send().expect(200);
    until("its processes end", Duration::from_secs(15), || {
        bay.processes_of(&sandbox.locker).is_empty().then_some(())
    });
    let shown = sandbox.show();
    assert_eq!(shown["status"], "expired", "{shown}");
    for call in [
        sandbox.post("shell/exec", &json!({ "command": "true" })),
        sandbox.post("extend_ttl", &json!({ "extend_by": 60 })),
        sandbox.post("keepalive", &json!({})),
        sandbox.post("recover", &json!({})),
        patch(&sandbox, json!({ "name": "late" })),
    ] {
        let error = call.error(409, "sandbox_expired");
        assert_eq!(error["details"], json!({ "sandbox_id": sandbox.id, "expires_at": shown["expires_at"] }));
    }
    let stopped = sandbox.post("stop", &json!({})).send().expect(200);
    assert_eq!(stopped["sandbox"]["status"], "expired");
    let listed = api.list("/v1/sandboxes?status=expired");
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &json!(sandbox.id)));
}

#[test]
fn what_expired_is_removed_after_its_grace_and_leaves_a_tombstone() {
    let house = json!({ "housekeeping": { "every": "1s", "expired_grace": "0s" } });
    let bay = Bay::start(Options::default().config(house));
    let sandbox = lazy(&bay.api(), json!({ "ttl": 1 }));
    let lives = lazy(&bay.api(), json!({ "ttl": 3600 }));
    until("it is removed", Duration::from_secs(15), || {
        (sandbox.call("GET", "").send().status == 404).then_some(())
    });
    for _ in 0..2 {
        assert_eq!(sandbox.call("DELETE", "").send().status, 204);
    }
    assert_eq!(lives.show()["status"], "idle");
    lives.call("DELETE", "").send();
    let never = format!("/v1/sandboxes/sbx_{}", "0".repeat(26));
    bay.api().call("DELETE", &never).error(404, "not_found");
}

/// A time `seconds` from now, by Bay's clock.
fn in_seconds(api: &Client, seconds: i64) -> String {
    let probe = lazy(api, json!({ "ttl": seconds }));
    probe.show()["expires_at"].as_str().expect("a time").to_owned()
}

#[test]
fn a_running_session_outlives_an_end_that_was_put_off() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let sandbox = api.sandbox(json!({ "profile": "shell-only", "start": "wait" }));
    let clock = lazy(&api, json!({ "ttl": 3 }));
    patch(&sandbox, json!({ "expires_at": clock.show()["expires_at"] })).send().expect(200);
    sandbox.post("extend_ttl", &json!({ "extend_by": 600 })).send().expect(200);
    until("the first end has passed", Duration::from_secs(15), || {
        (clock.show()["status"] == "expired").then_some(())
    });
    let ran = sandbox.shell("true");
    assert_eq!((&ran["success"], &ran["session_seq"]), (&json!(true), &json!(1)), "{ran}");
}

#[test]
fn a_keepalive_puts_idleness_off_and_starts_nothing() {
    let short =
        Profile::shell().named("short").with(json!({ "idle_timeout": "4s", "idle_timeout_max": "10m" }));
    let bay = Bay::start(Options::default().profile(short));
    let api = bay.api();
    let idle = lazy(&api, json!({ "ttl": 3600 }));
    let before = idle.show();
    let kept = idle.post("keepalive", &json!({})).send().expect(200);
    assert_eq!((&kept["status"], &kept["sandbox"]), (&json!("ok"), &before));

    let running = api.sandbox(json!({ "profile": "short", "start": "wait", "ttl": 3600 }));
    let first = running.show();
    let kept = until("time has passed", Duration::from_secs(5), || {
        let kept = running.post("keepalive", &json!({})).send().expect(200)["sandbox"].clone();
        (millis(&kept["idle_expires_at"]) > millis(&first["idle_expires_at"])).then_some(kept)
    });
    assert_eq!((&kept["expires_at"], &kept["session_seq"]), (&first["expires_at"], &json!(1)));
    // An idle time of its own, as far as the profile lets it.
    patch(&running, json!({ "idle_timeout": 601 })).bad_fields(&["idle_timeout"]);
    let own = patch(&running, json!({ "idle_timeout": 600 })).send().expect(200);
    assert!(millis(&own["idle_expires_at"]) - millis(&kept["idle_expires_at"]) > 500_000, "{own}");
    patch(&running, json!({ "idle_timeout": null })).send().expect(200);
    until("it is stopped for idleness", Duration::from_secs(15), || {
        (running.show()["status"] == "idle").then_some(())
    });
}

#[test]
fn what_failed_is_recovered_once_and_what_did_not_is_left_alone() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let idle = lazy(&api, json!({}));
    let before = idle.show();
    let left = idle.post("recover", &json!({})).send().expect(200);
    assert_eq!((&left["status"], &left["sandbox"]), (&json!("ok"), &before));

    let sandbox = api.sandbox(json!({ "profile": "shell-only", "start": "wait" }));
    let all = bay.processes_of(&sandbox.locker);
    all.iter().find(|p| p.is_init()).unwrap_or_else(|| panic!("no init among {all:#?}")).kill();
    let failed = until("the loss is noticed", Duration::from_secs(20), || {
        Some(sandbox.show()).filter(|s| s["status"] == "failed")
    });
    let reason = &failed["status_reason"];
    assert!(reason["code"].is_string() && reason["message"].is_string(), "{failed}");
    assert!(form::is_time(reason["since"].as_str().unwrap_or_default()), "{failed}");
    assert_eq!(sandbox.post("recover", &json!({})).send().expect(200)["status"], "ok");
    let ready = sandbox.ready();
    assert_eq!((&ready["session_seq"], &ready["status_reason"]), (&json!(2), &Value::Null));
}

#[test]
fn rules_are_asked_of_every_change() {
    let actions =
        ["sandbox.update", "sandbox.extend_ttl", "sandbox.keepalive", "sandbox.stop", "sandbox.recover"];
    let rules = json!({ "plugins": { "rules-default": { "config": { "deny_actions": actions } } } });
    let bay = Bay::start(Options::default().config(rules));
    let sandbox = lazy(&bay.api(), json!({ "ttl": 3600 }));
    let before = sandbox.show();
    for call in [
        patch(&sandbox, json!({ "name": "x" })),
        sandbox.post("extend_ttl", &json!({ "extend_by": 1 })),
        sandbox.post("keepalive", &json!({})),
        sandbox.post("stop", &json!({})),
        sandbox.post("recover", &json!({})),
    ] {
        let error = call.error(403, "denied_by_rule");
        assert_eq!(error["details"]["rule"], "rules-default", "{error}");
    }
    assert_eq!(sandbox.show(), before);
}
