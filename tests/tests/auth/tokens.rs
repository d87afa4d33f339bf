//! Sandbox tokens: one sandbox, some of its capabilities, nothing else.

use std::time::Duration;

use bay_tests::{Bay, Client, Options, Sandbox, until};
use serde_json::{Value, json};

const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol";

fn lazy(client: &Client) -> Sandbox {
    client.sandbox(json!({ "profile": "shell-only", "start": "lazy" }))
}

fn token(sandbox: &Sandbox, body: Value) -> String {
    let made = sandbox.post("tokens", &body).send().expect(201);
    made["token"].as_str().expect("a token").to_owned()
}

fn holding(bay: &Bay, token: &str) -> Client {
    Client::new(bay.addr(), Some(token))
}

#[test]
fn a_token_reaches_its_capabilities_of_its_sandbox_and_nothing_else() {
    let bay = Bay::start(Options::default().tenant("acme"));
    let owner = bay.api();
    let (own, other) = (lazy(&owner), lazy(&owner));
    let made = own
        .post("tokens", &json!({ "capabilities": ["filesystem", "filesystem"], "ttl": 60 }))
        .send()
        .expect(201);
    assert_eq!(made["capabilities"], json!(["filesystem"]));
    assert!(made["expires_at"].is_string(), "{made}");
    let text = made["token"].as_str().expect("a token");
    assert!(text.starts_with("bst_") && !bay.log().contains(text));
    let files = holding(&bay, text);

    let at = |sandbox: &Sandbox, tail: &str| format!("/v1/sandboxes/{}{tail}", sandbox.id);
    let file = json!({ "path": "f", "content": "from a page" });
    files.call("PUT", &at(&own, "/filesystem/files")).json(&file).send().expect(200);
    let read = files.get(&at(&own, "/filesystem/files?path=f")).send().expect(200);
    assert_eq!(read["content"], "from a page");
    let ran = own.shell("cat f");
    let execution = ran["execution_id"].as_str().expect("an execution");

    let beneath: Vec<(&str, String)> = vec![
        ("GET", String::new()),
        ("DELETE", String::new()),
        ("POST", "/stop".into()),
        ("POST", "/tokens".into()),
        ("POST", "/shell/exec".into()),
        ("POST", "/python/exec".into()),
        ("GET", format!("/executions/{execution}")),
    ];
    for (method, tail) in &beneath {
        files.call(method, &at(&own, tail)).error(403, "forbidden");
    }
    for (method, target) in [
        ("GET", "/v1/sandboxes"),
        ("POST", "/v1/sandboxes"),
        ("GET", "/v1/profiles"),
        ("GET", "/v1/admin/keys"),
        ("POST", "/v1/admin/keys"),
    ] {
        files.call(method, target).error(403, "forbidden");
    }
    // Another sandbox, even of the same tenant, is a missing one.
    let missing = "sbx_00000000000000000000000000";
    let files_route = ("GET", "/filesystem/files?path=f".to_owned());
    for (method, tail) in beneath.iter().chain([&files_route]) {
        let seen = |id: &str| {
            let mut error = files.call(method, &format!("/v1/sandboxes/{id}{tail}")).error(404, "not_found");
            error["request_id"] = Value::Null;
            error.to_string()
        };
        assert_eq!(seen(&other.id).replace(&other.id, missing), seen(missing), "{method} {tail}");
    }
    // What executes may look at executions.
    let shell = holding(&bay, &token(&own, json!({ "capabilities": ["shell"] })));
    let record = shell.get(&at(&own, &format!("/executions/{execution}"))).send().expect(200);
    assert_eq!(record["execution_id"], json!(execution));
    shell.post(&at(&own, "/shell/exec"), &json!({ "command": "true" })).send().expect(200);
    shell.get(&at(&own, "/filesystem/files?path=f")).error(403, "forbidden");
    let tokens = bay.as_tenant("acme").post(&at(&own, "/tokens"), &json!({ "capabilities": ["shell"] }));
    tokens.error(404, "not_found");
}

#[test]
fn a_token_is_sent_as_bearer_or_as_a_subprotocol() {
    let bay = Bay::start(Options::default());
    let sandbox = lazy(&bay.api());
    let text = token(&sandbox, json!({ "capabilities": ["filesystem"] }));
    let target = format!("/v1/sandboxes/{}/filesystem/files", sandbox.id);
    // 400: it came as far as the missing query.
    let reaches = |client: &Client| client.get(&target).send().status;
    let nobody = bay.anonymous();
    assert_eq!(reaches(&holding(&bay, &text)), 400);
    assert_eq!(reaches(&nobody.with(SUBPROTOCOL, &format!("bay.terminal.v1, bearer.{text}"))), 400);
    for client in [
        nobody.with("X-API-Key", &text),
        nobody.with(SUBPROTOCOL, &format!("bay.terminal.v1, bearer.{}", bay.key())),
        nobody.with(SUBPROTOCOL, "bay.terminal.v1"),
        nobody.with(SUBPROTOCOL, &format!("bearer.{text}, bearer.{text}")),
        // One who would send both does not know what it sends.
        bay.api().with(SUBPROTOCOL, &format!("bearer.{text}")),
        holding(&bay, &format!("{text}A")),
        holding(&bay, &text[..text.len() - 1]),
        holding(&bay, &text.replacen("bst_", "bst_A", 1)),
        holding(&bay, "bst_"),
    ] {
        client.get(&target).error(401, "unauthorized");
    }
}

#[test]
fn a_token_ends_with_its_time_its_key_and_its_sandbox() {
    let bay = Bay::start(Options::default());
    let admin = bay.api();
    let sandbox = lazy(&admin);
    let files = format!("/v1/sandboxes/{}/filesystem/files", sandbox.id);
    let works = |client: &Client| match client.get(&files).send().status {
        400 => true,
        401 => false,
        status => panic!("{status}"),
    };
    let made = admin.post("/v1/admin/keys", &json!({ "expires_in": 4 })).send().expect(201);
    let maker = Client::new(bay.addr(), made["secret"].as_str());
    let ask = |client: &Client, ttl: u64| {
        let body = json!({ "capabilities": ["filesystem"], "ttl": ttl });
        client.post(&format!("/v1/sandboxes/{}/tokens", sandbox.id), &body).send().expect(201)
    };
    let until_end = |client: &Client| {
        until("the token ends", Duration::from_secs(20), || (!works(client)).then_some(()));
    };
    let of = |made: &Value| holding(&bay, made["token"].as_str().expect("a token"));
    let (by_key, brief) = (ask(&maker, 3600), ask(&admin, 1));
    assert_eq!(by_key["expires_at"], made["expires_at"], "no longer than the key");
    assert!(works(&of(&by_key)));
    until_end(&of(&brief));
    until_end(&of(&by_key));

    let second = admin.post("/v1/admin/keys", &json!({})).send().expect(201);
    let revoked = of(&ask(&Client::new(bay.addr(), second["secret"].as_str()), 600));
    assert!(works(&revoked));
    let key = second["id"].as_str().expect("an id");
    admin.call("DELETE", &format!("/v1/admin/keys/{key}")).send().expect(204);
    assert!(!works(&revoked));

    let last = of(&ask(&admin, 600));
    assert!(works(&last));
    sandbox.call("DELETE", "").send().expect(204);
    assert!(!works(&last));
}

#[test]
fn a_token_is_asked_for_in_a_way_that_fits_the_sandbox() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let sandbox = lazy(&api);
    for (body, field) in [
        (json!({}), "capabilities"),
        (json!({ "capabilities": [] }), "capabilities"),
        (json!({ "capabilities": ["shell"], "ttl": 3601 }), "ttl"),
        (json!({ "capabilities": ["shell"], "ttl": 0 }), "ttl"),
    ] {
        sandbox.post("tokens", &body).bad_fields(&[field]);
    }
    let python = json!({ "capabilities": ["shell", "python"] });
    let error = sandbox.post("tokens", &python).error(400, "capability_not_supported");
    let available = json!(["filesystem", "shell"]);
    assert_eq!(error["details"], json!({ "capability": "python", "available": available }));
    assert_eq!(sandbox.show()["status"], "idle", "nothing started");
    let brief = api.sandbox(json!({ "profile": "shell-only", "start": "lazy", "ttl": 1 }));
    until("the sandbox expires", Duration::from_secs(10), || {
        (brief.show()["status"] == "expired").then_some(())
    });
    brief.post("tokens", &json!({ "capabilities": ["shell"] })).error(409, "sandbox_expired");
}
