//! The listener's manners: compression, CORS, the second listener, the end.

use std::net::SocketAddr;
use std::time::Duration;

use bay_tests::{Bay, Client, Options, until};
use serde_json::json;

/// Where the second listener of this Bay is.
fn ops_of(bay: &Bay) -> SocketAddr {
    const SAID: &str = "metrics on http://";
    let log = bay.log();
    let rest = &log[log.find(SAID).expect("it says where the second listener is") + SAID.len()..];
    let line = rest.lines().next().unwrap_or_default();
    line.trim().parse().unwrap_or_else(|e| panic!("{line}: {e}"))
}

#[test]
fn the_ops_listener_tells_all_of_health_and_nothing_else() {
    let bay = Bay::start(Options::default().config(json!({ "server": { "ops_listen": "127.0.0.1:0" } })));
    let address = ops_of(&bay);
    let ops = Client::new(address, None);
    assert_eq!(ops.get("/health").send().expect(200), json!({ "status": "ok" }));
    let ready = ops.get("/ready").send().expect(200);
    assert!(ready["parts"]["store"]["ok"].is_boolean() && ready["parts"]["driver"].is_object(), "{ready}");

    // What is counted goes by the route's pattern: neither ids nor what a client makes up may become labels.
    let api = bay.api();
    let sandbox = api.sandbox(json!({ "start": "lazy" }));
    sandbox.show();
    api.get("/v1/no-such-thing-as-this").error(404, "not_found");
    let metrics = ops.get("/metrics").send();
    assert_eq!(metrics.status, 200, "{}", metrics.brief());
    let text = metrics.text();
    for wanted in [
        r#"bay_http_requests_total{method="GET",route="/v1/sandboxes/{id}",status="200"}"#,
        r#"bay_http_requests_total{method="GET",route="unmatched",status="404"}"#,
        r#"bay_http_request_seconds_bucket{"#,
        r#"bay_sessions{phase="ready"} 0"#,
        r#"bay_store_queue{kind="write"}"#,
        "bay_process_resident_bytes ",
        "bay_connections ",
    ] {
        assert!(text.contains(wanted), "no {wanted} in {text}");
    }
    assert!(!text.contains(&sandbox.id) && !text.contains("no-such-thing"), "{text}");
    // The same with a key on the main listener; never without.
    assert_eq!(api.get("/metrics").send().status, 200);
    bay.anonymous().get("/metrics").error(401, "unauthorized");

    // Sandboxes are not to be had there, whatever the key, and a name that is rebound to it gets nothing.
    api.get("/v1/sandboxes").send().expect(200);
    Client::new(address, Some(bay.key())).get("/v1/sandboxes").error(404, "not_found");
    ops.with("Host", "evil.example").get("/metrics").error(403, "forbidden");
    ops.with("Origin", "https://evil.example").get("/metrics").error(403, "forbidden");
}

#[test]
fn json_over_a_kibibyte_is_compressed_for_who_asks() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let _made: Vec<_> = (0..5).map(|_| api.sandbox(json!({ "start": "lazy" }))).collect();
    let plain = api.get("/v1/sandboxes").send();
    assert_eq!(plain.header("content-encoding"), None);
    assert!(plain.body.len() > 1024, "{}", plain.brief());
    let asked = api.with("Accept-Encoding", "gzip");
    let packed = asked.get("/v1/sandboxes").send();
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.header("vary").map(str::to_ascii_lowercase).as_deref(), Some("accept-encoding"));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() < plain.body.len());
    assert_eq!(asked.get("/health").send().header("content-encoding"), None, "too small to be worth it");
}

#[test]
fn pages_of_listed_origins_may_read_answers_and_no_others() {
    let listed = "https://app.example.org";
    let bay = Bay::start(Options::default().config(json!({ "server": { "cors_origins": [listed] } })));
    let page = bay.api().with("Origin", listed);
    let preflight = page
        .without("Authorization")
        .with("Access-Control-Request-Method", "POST")
        .with("Access-Control-Request-Headers", "authorization,content-type")
        .call("OPTIONS", "/v1/sandboxes")
        .send();
    assert_eq!(preflight.status, 204, "{}", preflight.brief());
    assert_eq!(preflight.header("access-control-allow-origin"), Some(listed));
    let headers = preflight.header("access-control-allow-headers").unwrap_or_default();
    assert!(headers.contains("authorization") && headers.contains("idempotency-key"), "{headers}");
    assert_eq!(preflight.header("access-control-allow-credentials"), None, "cookies are not what pages use");
    let read = page.get("/v1/sandboxes").send();
    assert_eq!((read.status, read.header("access-control-allow-origin")), (200, Some(listed)));
    assert!(read.header("access-control-expose-headers").is_some_and(|h| h.contains("x-request-id")));
    // An error can be read, too: the page must learn what is wrong.
    let missing = page.get("/v1/sandboxes/sbx_none").send();
    assert_eq!((missing.status, missing.header("access-control-allow-origin")), (404, Some(listed)));

    for other in
        ["https://evil.example", "http://app.example.org", "https://app.example.org.evil.example", "null"]
    {
        let refused = bay.api().with("Origin", other).get("/v1/sandboxes").send();
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None), "{other}");
    }
}

#[test]
fn a_call_in_flight_is_answered_before_bay_ends_and_the_sandbox_stays() {
    let mut bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only", "start": "wait" }));
    sandbox.ready();
    let call = sandbox.post("shell/exec", &json!({ "command": "touch began; sleep 1; echo done" }));
    let caller = std::thread::spawn(move || call.send());
    until("the command runs", Duration::from_secs(20), || {
        (sandbox.file("began").send().status == 200).then_some(())
    });
    assert!(bay.terminate().success());
    let answer = caller.join().expect("the caller").expect(200);
    assert_eq!(answer["stdout"], "done\n", "{answer}");
    bay.start_again();
    assert_eq!(sandbox.shell_ok("ls"), "began");
}
