//! What is refused before anything starts, and how.

use std::time::Duration;

use bay_tests::http::send_raw;
use bay_tests::{Bay, Client, Options, form};
use serde_json::{Value, json};

/// An id of the right form that nobody has.
const NOBODY: &str = "sbx_00000000000000000000000000";

#[test]
fn every_refusal_has_the_error_body_and_starts_nothing() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    unknown_places(&api);
    bodies(&api);
    create_fields(&api);
    list_parameters(&api);
    request_ids(&api);
    let quiet = api.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    capabilities(&quiet);
    exec_fields(&quiet);
    paths(&quiet);
    let shown = quiet.show();
    assert_eq!((&shown["status"], &shown["session_seq"]), (&json!("idle"), &json!(0)), "{shown}");
    assert!(bay.processes().is_empty(), "a refused call started something: {:?}", bay.processes());
}

fn unknown_places(api: &Client) {
    for target in ["/nope", "/v1", "/v1/nope", "/v1/sandboxes/x/y/z/w", "/V1/sandboxes", "//v1/sandboxes"] {
        api.get(target).error(404, "not_found");
    }
    for (method, target) in [
        ("PATCH", "/v1/profiles"),
        ("DELETE", "/v1/sandboxes"),
        ("POST", "/health"),
        ("PUT", "/v1/sandboxes"),
        ("TRACE", "/v1/sandboxes"),
    ] {
        api.call(method, target).error(405, "method_not_allowed");
    }
    let post = format!("/v1/sandboxes/{NOBODY}/stop");
    let python = format!("/v1/sandboxes/{NOBODY}/python/exec");
    for call in [
        api.get(&format!("/v1/sandboxes/{NOBODY}")),
        api.post(&post, &json!({})),
        api.post(&python, &json!({ "code": "1" })),
        api.get(&format!("/v1/sandboxes/{NOBODY}/filesystem/files?path=a")),
        api.call("DELETE", &format!("/v1/sandboxes/{NOBODY}")),
    ] {
        let error = call.error(404, "not_found");
        assert_eq!(error["details"], json!({ "resource": "sandbox", "id": NOBODY }), "{error}");
        assert_eq!(error["retryable"], false, "{error}");
    }
    for id in ["nope", "..%2F..%2Fetc", "sbx_%00", "lkr_00000000000000000000000000", "%F0%9F%92%A5"] {
        api.get(&format!("/v1/sandboxes/{id}")).error(404, "not_found");
    }
    // What is not even a path a server should make sense of is still answered, and in the same form.
    for target in ["/v1/sandboxes/%", "/v1/sandboxes/%FF", "/../etc/passwd", "/v1/../health"] {
        let answer = api.get(target).send();
        assert!([400, 404].contains(&answer.status), "{}: {}", answer.asked, answer.brief());
    }
}

fn bodies(api: &Client) {
    for broken in ["{\"profile\":", "nonsense", "{\"profile\": \"a\"} trailing", "\u{feff}{}"] {
        api.call("POST", "/v1/sandboxes").body("application/json", broken).error(400, "validation_error");
    }
    for shape in ["[]", "\"text\"", "null", "7"] {
        api.call("POST", "/v1/sandboxes").body("application/json", shape).error(400, "validation_error");
    }
    api.call("POST", "/v1/sandboxes")
        .body("application/json", b"{\"name\": \"\xff\xfe\"}".to_vec())
        .error(400, "validation_error");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    api.call("POST", "/v1/sandboxes")
        .body("application/json", format!("{{\"labels\": {deep}}}"))
        .error(400, "validation_error");
    for other in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"]
    {
        api.call("POST", "/v1/sandboxes").body(other, "{}").error(415, "unsupported_media_type");
    }
    nine_mebibytes(api);
}

fn nine_mebibytes(api: &Client) {
    let code = "#".repeat(9 << 20);
    let sandbox = api.sandbox(json!({ "profile": "python-default", "start": "lazy" }));
    sandbox.post("python/exec", &json!({ "code": code })).error(413, "payload_too_large");
    // Short as text, and hundreds of times as large once it is read.
    let many = json!({ "code": "1", "unknown": vec![json!({ "": 0 }); 60_000] });
    let error = sandbox.post("python/exec", &many).error(400, "validation_error");
    assert!(error["message"].as_str().is_some_and(|said| said.contains("values")), "{error}");
    // The same without saying how long it is.
    let addr = api.addr();
    let head = format!(
        "POST /v1/sandboxes HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n"
    );
    let without_key = format!("{head}\r\n0\r\n\r\n");
    let answer = send_raw(addr, without_key.as_bytes(), Duration::from_secs(10)).expect("an answer");
    assert_eq!(answer.status, 401, "{}", answer.brief());
    assert_eq!(sandbox.show()["status"], "idle");
}

fn create_fields(api: &Client) {
    api.post(
        "/v1/sandboxes",
        &json!({ "profile": 1, "ttl": "soon", "labels": [], "env": "x", "start": "now", "name": {} }),
    )
    .bad_fields(&["profile", "ttl", "labels", "env", "start", "name"]);
    let many: serde_json::Map<String, Value> = (0..33).map(|i| (format!("k{i}"), json!("v"))).collect();
    for (field, value) in [
        ("ttl", json!(-1)),
        ("ttl", json!(1.5)),
        ("ttl", json!(u64::MAX)),
        ("labels", Value::Object(many)),
        ("labels", json!({ "bay.mine": "v" })),
        ("labels", json!({ "": "v" })),
        ("labels", json!({ "a b": "v" })),
        ("labels", json!({ "k".repeat(64): "v" })),
        ("labels", json!({ "k": "v".repeat(257) })),
        ("labels", json!({ "k": 1 })),
        ("env", json!({ "1X": "v" })),
        ("env", json!({ "A=B": "v" })),
        ("env", json!({ "A": null })),
        ("env", json!({ "A": "nul\u{0}" })),
    ] {
        let call = api.post("/v1/sandboxes", &json!({ "start": "lazy", field: value }));
        call.bad_fields(&[field]);
    }
    let error = api.post("/v1/sandboxes", &json!({ "profile": "nope" })).error(404, "not_found");
    assert_eq!(error["details"], json!({ "resource": "profile", "id": "nope" }), "{error}");
    for id in ["../profiles/python-default", "python-default\u{0}", ""] {
        let answer = api.post("/v1/sandboxes", &json!({ "profile": id })).send();
        assert!([400, 404].contains(&answer.status), "{id:?}: {}", answer.brief());
    }
    let locker = "lkr_00000000000000000000000000";
    let error = api.post("/v1/sandboxes", &json!({ "locker_id": locker })).error(404, "not_found");
    assert_eq!(error["details"], json!({ "resource": "locker", "id": locker }), "{error}");
    let kept = api.sandbox(json!({ "start": "lazy", "from_the_future": { "a": 1 } }));
    assert_eq!(kept.show()["profile"], "python-default");
}

fn list_parameters(api: &Client) {
    for limit in ["0", "201", "-1", "x", "", "1e2"] {
        api.get("/v1/sandboxes").query("limit", limit).bad_fields(&["limit"]);
    }
    for cursor in ["x", "AAAA", "\u{0}", "eyJhIjoxfQ", "%"] {
        api.get("/v1/sandboxes").query("cursor", cursor).bad_fields(&["cursor"]);
    }
}

fn request_ids(api: &Client) {
    let id = |r: &bay_tests::Response| r.header("x-request-id").unwrap_or_default().to_owned();
    let first = id(&api.get("/health").send());
    let second = id(&api.get("/health").send());
    assert_ne!(first, second);
    for mine in ["mine-1", "x", &"v".repeat(128), &"v".repeat(129), "with blank"] {
        let answer = api.get("/v1/nope").header("X-Request-Id", mine).send();
        assert_eq!(answer.status, 404, "{mine}: {}", answer.brief());
        assert!(form::is_uuid7(&id(&answer)), "Bay's id is its own, whatever the client sends");
    }
}

fn capabilities(quiet: &bay_tests::Sandbox) {
    let error = quiet.post("python/exec", &json!({ "code": "1" })).error(400, "capability_not_supported");
    let details = json!({ "capability": "python", "available": ["filesystem", "shell"] });
    assert_eq!(error["details"], details, "{error}");
    assert_eq!(error["retryable"], false);
    // Undeclared comes before whether such a thing exists, and before its body.
    quiet.post("acme_browser/open", &json!({})).error(400, "capability_not_supported");
    quiet.post("python/exec", &json!({ "code": 1 })).error(400, "capability_not_supported");
    quiet.post("shell/fly", &json!({})).error(404, "not_found");
}

fn exec_fields(quiet: &bay_tests::Sandbox) {
    quiet.post("shell/exec", &json!({})).bad_fields(&["command"]);
    quiet
        .post("shell/exec", &json!({ "command": 1, "timeout": 0, "env": [], "stdin": {}, "cwd": 5 }))
        .bad_fields(&["command", "timeout", "env", "stdin", "cwd"]);
    for timeout in [json!(0), json!(3601), json!(-1), json!(1.5), json!("1")] {
        quiet.post("shell/exec", &json!({ "command": "true", "timeout": timeout })).bad_fields(&["timeout"]);
    }
    quiet.post("shell/exec", &json!({ "command": "true", "env": { "1X": "v" } })).bad_fields(&["env"]);
    quiet.call("POST", "shell/exec").body("application/json", "{").error(400, "validation_error");
    quiet.call("POST", "shell/exec").body("text/plain", "{}").error(415, "unsupported_media_type");
    quiet.call("PUT", "filesystem/files").json(&json!({ "content": "x" })).bad_fields(&["path"]);
    quiet
        .write_with(json!({ "path": "a", "content": 1, "encoding": "latin-1" }))
        .bad_fields(&["content", "encoding"]);
    quiet.call("GET", "filesystem/files").bad_fields(&["path"]);
    quiet.file("a").query("encoding", "latin-1").bad_fields(&["encoding"]);
    quiet.file("a").query("offset", "0").bad_fields(&["offset"]);
    quiet.file("a").query("limit", "x").bad_fields(&["limit"]);
    quiet.dir(".").query("recursive", "maybe").bad_fields(&["recursive"]);
}

fn paths(quiet: &bay_tests::Sandbox) {
    for (path, reason) in [
        ("", "empty_path"),
        ("/etc/passwd", "absolute_path"),
        ("/workspace/a", "absolute_path"),
        ("//etc/passwd", "absolute_path"),
        ("..", "path_traversal"),
        ("../x", "path_traversal"),
        ("a/../../x", "path_traversal"),
        ("./../x", "path_traversal"),
        ("a/b/../../../x", "path_traversal"),
        ("a\u{0}b", "null_byte"),
        ("\u{0}", "null_byte"),
    ] {
        let want = json!({ "field": "path", "reason": reason });
        for call in [
            quiet.file(path),
            quiet.write_with(json!({ "path": path, "content": "x" })),
            quiet.remove(path),
            quiet.dir(path),
            quiet.download(path),
        ] {
            let error = call.error(400, "invalid_path");
            assert_eq!(error["details"], want, "{path:?}: {error}");
        }
    }
    for (cwd, reason) in [("/etc", "absolute_path"), ("../..", "path_traversal")] {
        let call = quiet.post("shell/exec", &json!({ "command": "pwd", "cwd": cwd }));
        let error = call.error(400, "invalid_path");
        assert_eq!(error["details"], json!({ "field": "cwd", "reason": reason }), "{error}");
    }
}
