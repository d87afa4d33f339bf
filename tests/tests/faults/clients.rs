//! Clients that misbehave on the wire.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use bay_tests::http::send_raw;
use bay_tests::{Bay, Options};
use serde_json::json;

#[test]
fn slow_and_broken_clients_stop_nobody_else() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let sandbox = api.sandbox(json!({ "profile": "shell-only" }));
    let addr = bay.addr();
    let half_head = format!("POST /v1/sandboxes HTTP/1.1\r\nHost: {addr}\r\nX-Slow: ");
    let half_body = format!(
        "POST /v1/sandboxes HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 1000\r\n\r\n{{\"profile\"",
        bay.key()
    );
    let mut open: Vec<TcpStream> = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(addr).expect("connect");
        let part = match n % 3 {
            0 => "",
            1 => half_head.as_str(),
            _ => half_body.as_str(),
        };
        stream.write_all(part.as_bytes()).expect("send a part of a request");
        open.push(stream);
    }
    sandbox.unharmed();
    drop(open);
    sandbox.unharmed();
    assert_eq!(api.list("/v1/sandboxes").len(), 1, "half a request made something");

    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nx",
        b"POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nConnection: close\r\n\r\nx",
    ] {
        // An answer or a closed connection, and never a success.
        if let Ok(answer) = send_raw(addr, nonsense, Duration::from_secs(10)) {
            assert!(answer.status >= 400, "{:?}: {}", String::from_utf8_lossy(nonsense), answer.brief());
        }
    }
    let long = api.get("/v1/sandboxes").header("X-Long", &"x".repeat(1 << 20)).try_send();
    assert!(long.map_or(true, |answer| answer.status >= 400));
    // Reading a large answer slowly, or not at all, holds up nobody.
    sandbox.shell_ok("head -c 67108864 /dev/zero > large");
    let unread: Vec<TcpStream> = (0..8).map(|_| sandbox.download("large").send_and_leave_unread()).collect();
    sandbox.unharmed();
    drop(unread);
    sandbox.unharmed();
}
