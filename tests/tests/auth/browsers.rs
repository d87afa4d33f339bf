//! A page in a browser must not reach Bay by a name or from an origin of its own.

use bay_tests::{Bay, Options};
use serde_json::json;

#[test]
fn only_known_hosts_and_origins_are_answered() {
    let options = Options::default().config(json!({ "server": { "hosts": ["bay.example.test"] } }));
    let bay = Bay::start(options);
    let api = bay.api();
    let port = bay.addr().port();
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), "bay.example.test".to_owned()] {
        let answer = api.with("Host", &host).get("/v1/sandboxes").send();
        assert_eq!(answer.status, 200, "{host}: {}", answer.brief());
    }
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "169.254.169.254",
        "bay.example.test.evil",
    ] {
        for target in ["/v1/sandboxes", "/health", "/nope"] {
            let answer = api.with("Host", host).get(target).send();
            assert!([400, 403, 421].contains(&answer.status), "{host} {target}: {}", answer.brief());
        }
    }
    for target in ["/v1/sandboxes", "/health"] {
        // Neither a second Host nor a target with a host of its own gets by.
        let twice = api.get(target).header("Host", "evil.example").send();
        assert!([400, 403].contains(&twice.status), "{target}: {}", twice.brief());
        let absolute = api.get(&format!("http://evil.example{target}")).send();
        assert!([400, 403].contains(&absolute.status), "{target}: {}", absolute.brief());
    }
    for origin in
        ["http://evil.example", "null", "https://127.0.0.1.evil.example", "file://", "http://[::1", ""]
    {
        for call in [api.get("/v1/sandboxes"), api.post("/v1/sandboxes", &json!({})), api.get("/health")] {
            call.clone().header("Origin", origin).error(403, "forbidden");
            let good = format!("http://localhost:{port}");
            call.header("Origin", &good).header("Origin", origin).error(403, "forbidden");
        }
    }
    assert!(api.list("/v1/sandboxes").is_empty());
    let preflight = api
        .call("OPTIONS", "/v1/sandboxes")
        .header("Origin", "http://evil.example")
        .header("Access-Control-Request-Method", "POST")
        .send();
    assert!(preflight.status >= 400, "{}", preflight.brief());
    assert!(preflight.header("access-control-allow-origin").is_none(), "{:?}", preflight.headers);
}
