//! Keys through the admin API.

use std::time::Duration;

use bay_tests::{Bay, Client, Options, form, until};
use serde_json::{Value, json};

fn with_key(bay: &Bay, made: &Value) -> Client {
    Client::new(bay.addr(), Some(made["secret"].as_str().expect("a secret")))
}

fn make(admin: &Client, body: Value) -> Value {
    admin.post("/v1/admin/keys", &body).send().expect(201)
}

/// The answer to a refused key, without what differs from request to request.
fn refused(client: &Client) -> Value {
    let mut error = client.get("/v1/sandboxes").error(401, "unauthorized");
    error["request_id"] = Value::Null;
    error
}

#[test]
fn a_key_is_shown_once_notes_its_use_and_is_revoked() {
    let bay = Bay::start(Options::default());
    let admin = bay.api();
    let made = make(&admin, json!({ "tenant": "acme", "name": "build server", "scopes": ["sandboxes"] }));
    let id = made["id"].as_str().expect("an id").to_owned();
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    assert!(form::is_id("key_", &id), "{made}");
    assert_eq!((&made["tenant"], &made["name"]), (&json!("acme"), &json!("build server")));
    assert_eq!((&made["scopes"], &made["expires_at"]), (&json!(["sandboxes"]), &Value::Null));
    assert_eq!((&made["revoked_at"], &made["last_used_at"]), (&Value::Null, &Value::Null));

    let acme = with_key(&bay, &made);
    assert!(acme.list("/v1/sandboxes").is_empty());
    let at = format!("/v1/admin/keys/{id}");
    let shown = until("the use of the key is noted", Duration::from_secs(5), || {
        Some(admin.get(&at).send().expect(200)).filter(|key| key["last_used_at"].is_string())
    });
    assert_eq!(shown["id"], json!(id));
    let listed = admin.list("/v1/admin/keys?tenant=acme");
    assert_eq!(listed, [shown]);
    assert!(listed[0].get("hash").is_none() && listed[0].get("secret").is_none(), "{listed:?}");
    for text in [json!(listed).to_string(), bay.log()] {
        assert!(!text.contains(&secret) && !text.contains(&secret[60..]));
    }

    // Another tenant's key may be revoked, its own later, and again.
    admin.call("DELETE", &at).send().expect(204);
    acme.get("/v1/sandboxes").error(401, "unauthorized");
    let revoked = admin.get(&at).send().expect(200)["revoked_at"].clone();
    assert!(revoked.is_string());
    admin.call("DELETE", &at).send().expect(204);
    assert_eq!(admin.get(&at).send().expect(200)["revoked_at"], revoked, "the first time stays");
    for unknown in ["key_00000000000000000000000000", "key_x", "sbx_00000000000000000000000000"] {
        let target = format!("/v1/admin/keys/{unknown}");
        for call in [admin.get(&target), admin.call("DELETE", &target)] {
            assert_eq!(call.error(404, "not_found")["details"], json!({ "resource": "key", "id": unknown }));
        }
    }
    let second = make(&admin, json!({ "scopes": ["admin"] }));
    let itself = with_key(&bay, &second);
    let own = format!("/v1/admin/keys/{}", second["id"].as_str().expect("an id"));
    itself.call("DELETE", &own).send().expect(204);
    itself.get(&own).error(401, "unauthorized");
}

#[test]
fn every_refused_key_is_refused_alike() {
    let bay = Bay::start(Options::default());
    let admin = bay.api();
    let short = make(&admin, json!({ "expires_in": 1 }));
    let soon = with_key(&bay, &short);
    let expired = until("the key expires", Duration::from_secs(10), || {
        (soon.get("/v1/sandboxes").send().status == 401).then(|| refused(&soon))
    });
    assert!(short["expires_at"].is_string());
    let good = make(&admin, json!({}));
    let text = good["secret"].as_str().expect("a secret");
    let last = if text.ends_with('0') { '1' } else { '0' };
    let wrong_secret = format!("{}{last}", &text[..text.len() - 1]);
    let unknown_id = format!("bay_{}{}", "0".repeat(26), &text[30..]);
    for key in [wrong_secret.as_str(), unknown_id.as_str(), "bay_", "nothing like a key"] {
        assert_eq!(refused(&Client::new(bay.addr(), Some(key))), expired, "{key}");
    }
    let revoked = with_key(&bay, &good);
    revoked.get("/v1/sandboxes").send().expect(200);
    let id = good["id"].as_str().expect("an id");
    admin.call("DELETE", &format!("/v1/admin/keys/{id}")).send().expect(204);
    assert_eq!(refused(&revoked), expired);
    // A time in the past cannot be asked for in the first place.
    let past = json!({ "expires_at": "2020-01-01T00:00:00Z" });
    admin.post("/v1/admin/keys", &past).bad_fields(&["expires_at"]);
}

#[test]
fn a_key_may_do_what_its_scopes_say_and_no_more() {
    let bay = Bay::start(Options::default());
    let admin = bay.api();
    let client = |scopes: Value| with_key(&bay, &make(&admin, json!({ "scopes": scopes })));
    let plain = with_key(&bay, &make(&admin, json!({})));
    let ops = client(json!(["ops"]));
    let lockers = client(json!(["lockers:files"]));
    let only_admin = client(json!(["admin"]));
    let one = "/v1/sandboxes/sbx_00000000000000000000000000";
    plain.get("/v1/sandboxes").send().expect(200);
    plain.get(one).error(404, "not_found");
    for client in [&ops, &lockers, &only_admin] {
        for (method, target) in [
            ("GET", "/v1/sandboxes".to_owned()),
            ("POST", "/v1/sandboxes".to_owned()),
            ("GET", "/v1/profiles".to_owned()),
            ("GET", one.to_owned()),
            ("DELETE", one.to_owned()),
            ("POST", format!("{one}/stop")),
            ("POST", format!("{one}/tokens")),
            ("POST", format!("{one}/shell/exec")),
            ("GET", format!("{one}/filesystem/files?path=f")),
        ] {
            client.call(method, &target).error(403, "forbidden");
        }
    }
    let some_key = "/v1/admin/keys/key_00000000000000000000000000";
    for client in [&plain, &ops, &lockers] {
        client.get("/v1/admin/keys").error(403, "forbidden");
        client.post("/v1/admin/keys", &json!({})).error(403, "forbidden");
        client.get(some_key).error(403, "forbidden");
        client.call("DELETE", some_key).error(403, "forbidden");
    }
    only_admin.get("/v1/admin/keys").send().expect(200);
    assert!(ops.get("/ready").send().json()["parts"].is_object());
    assert!(plain.get("/ready").send().json()["parts"].is_null());
}

#[test]
fn bad_requests_for_keys_are_told_everything_at_once_and_lists_have_pages() {
    let bay = Bay::start(Options::default());
    let admin = bay.api();
    let body = json!({ "tenant": "No", "name": "", "scopes": ["root"], "expires_in": -1 });
    admin.post("/v1/admin/keys", &body).bad_fields(&["tenant", "name", "scopes", "expires_in"]);
    admin.post("/v1/admin/keys", &json!({})).header("Idempotency-Key", "k").bad_fields(&["Idempotency-Key"]);
    for n in 0..5 {
        make(&admin, json!({ "tenant": "many", "name": n.to_string() }));
    }
    let mut names = Vec::new();
    let mut next = "/v1/admin/keys?tenant=many&limit=2".to_owned();
    loop {
        let page = admin.get(&next).send().expect(200);
        names.extend(page["items"].as_array().expect("items").iter().map(|k| k["name"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        next = format!("/v1/admin/keys?tenant=many&limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["4", "3", "2", "1", "0"].map(Value::from));
    assert!(admin.list("/v1/admin/keys").len() >= 6, "of every tenant");
    admin.get("/v1/admin/keys?limit=0").bad_fields(&["limit"]);
    admin.get("/v1/admin/keys?cursor=x").bad_fields(&["cursor"]);
    admin.get("/v1/admin/keys?tenant=No").bad_fields(&["tenant"]);
}
