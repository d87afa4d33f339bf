//! Requests that do not fit: each gets a clear answer or a closed connection, and Ship goes on.

use std::io::Read;
use std::time::{Duration, Instant};

use bay_ship_tests::{Client, Place};
use serde_json::{Value, json};

crate::cases! {
    bad_requests_get_a_clear_answer_and_the_connection_goes_on,
    a_body_beyond_the_bound_is_refused_unread,
    an_error_has_the_shape_of_the_contract,
    every_post_route_refuses_what_is_no_json,
    a_missing_or_mistyped_field_is_named_and_an_unknown_one_ignored,
    a_body_that_breaks_off_harms_nobody,
    a_chunked_body_is_read_as_any_other,
    what_is_no_http_is_refused,
    a_head_that_does_not_end_is_let_go,
    requests_in_one_write_are_answered_in_order,
}

/// Routes that take no JSON: they do what they do whatever the body says, or read it as it is.
const NO_JSON: &[&str] = &["/ipython/kernel/restart", "/fs/upload", "/fs/archive", "/executions/{id}/cancel"];

/// The routes that `/meta` names, as method and path.
pub(crate) fn endpoints(client: &mut Client) -> Vec<(String, String)> {
    let meta = client.get("/meta").json();
    let mut all = Vec::new();
    for (name, capability) in meta["capabilities"].as_object().unwrap() {
        for (operation, endpoint) in capability["endpoints"].as_object().unwrap() {
            let endpoint = endpoint.as_str().unwrap_or_else(|| panic!("{name}.{operation}: {endpoint}"));
            let (method, path) = endpoint.split_once(' ').unwrap();
            all.push((method.to_owned(), path.to_owned()));
        }
    }
    all
}

/// The code of an answer that must be an error of the contract's shape.
fn error(status: u16, body: &Value) -> String {
    let error = &body["error"];
    assert!((400..=599).contains(&status), "{status} {body}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    assert!(error["details"].is_object(), "{body}");
    error["code"].as_str().unwrap_or_else(|| panic!("no code: {body}")).to_owned()
}

/// A Ship that still does its work.
fn lives(place: &dyn Place) {
    place.client().shell_ok("true");
}

pub(crate) fn an_error_has_the_shape_of_the_contract(place: &dyn Place) {
    let client = &mut place.client();
    for path in ["/", "/nothing", "/fs", "/fs/", "/shell/exec/", "/../health", "//health", "/HEALTH", "/%00"]
    {
        let answer = client.get(path);
        assert_eq!(
            (answer.status, error(answer.status, &answer.json()).as_str()),
            (404, "not_found"),
            "{path}"
        );
    }
    for (method, path) in endpoints(client) {
        let path = path.replace("{", "x").replace('}', "");
        for other in ["PUT", "PATCH", "OPTIONS"].into_iter().filter(|other| *other != method) {
            let answer =
                client.raw(format!("{other} {path} HTTP/1.1\r\nhost: ship\r\n\r\n").as_bytes()).unwrap();
            let code = error(answer.status, &answer.json());
            assert_eq!((answer.status, code.as_str()), (405, "method_not_allowed"), "{other} {path}");
        }
    }
}

pub(crate) fn every_post_route_refuses_what_is_no_json(place: &dyn Place) {
    let client = &mut place.client();
    let deep = [b'['; 100_000];
    for (method, path) in endpoints(client) {
        if method != "POST" || NO_JSON.contains(&path.as_str()) {
            continue;
        }
        let path = path.replace("{", "x").replace('}', "");
        for body in
            [&b""[..], b"{", b"{\"path\": ", b"null", b"[]", b"\"x\"", b"\xff\xfe\x00", b"1e999", &deep]
        {
            let answer = client.post_bytes(&path, body);
            let code = error(answer.status, &answer.json());
            assert!((400..500).contains(&answer.status), "{path}: {} {code}", answer.status);
        }
    }
    lives(place);
}

pub(crate) fn a_missing_or_mistyped_field_is_named_and_an_unknown_one_ignored(place: &dyn Place) {
    let client = &mut place.client();
    for (path, body, field) in [
        ("/shell/exec", json!({"timeout": 1}), "command"),
        ("/ipython/exec", json!({"timeout": 1}), "code"),
        ("/fs/read_file", json!({}), "path"),
        ("/fs/write_file", json!({"path": "a"}), "content"),
        ("/fs/delete_file", json!({}), "path"),
        ("/fs/list_dir", json!({}), "path"),
    ] {
        let answer = client.post_bytes(path, body.to_string().as_bytes());
        assert_eq!(error(answer.status, &answer.json()), "validation_error", "{path}");
        assert!(answer.json().to_string().contains(field), "{path}: {}", answer.json());
    }
    for (path, body) in [
        ("/shell/exec", json!({"command": 1, "timeout": 1})),
        ("/shell/exec", json!({"command": "true", "timeout": "1"})),
        ("/shell/exec", json!({"command": "true", "timeout": -1})),
        ("/shell/exec", json!({"command": "true", "timeout": 1.5})),
        ("/shell/exec", json!({"command": "true", "timeout": 1, "env": ["A=B"]})),
        ("/ipython/exec", json!({"code": null, "timeout": 1})),
        ("/fs/read_file", json!({"path": ["a"]})),
        ("/fs/read_file", json!({"path": "a", "offset": -1})),
        ("/fs/write_file", json!({"path": "a", "content": "x", "encoding": "latin-1"})),
        ("/fs/write_file", json!({"path": "a", "content": "?", "encoding": "base64"})),
        ("/fs/list_dir", json!({"path": ".", "limit": 0})),
        ("/fs/list_dir", json!({"path": ".", "cursor": "?"})),
    ] {
        assert_eq!(client.post(path, &body), Err((400, "validation_error".into())), "{path} {body}");
    }
    let body = json!({"command": "echo hi", "timeout": 10, "from_a_later_bay": {"x": [1]}});
    assert_eq!(client.shell_with(&body).stdout, "hi\n");
}

pub(crate) fn a_body_that_breaks_off_harms_nobody(place: &dyn Place) {
    for path in ["/fs/write_file", "/shell/exec", "/ipython/exec"] {
        for part in ["", "{\"path\": \"broken\", \"content\": \"x"] {
            let mut client = place.client();
            let head = format!("POST {path} HTTP/1.1\r\nhost: ship\r\ncontent-length: 1000\r\n\r\n{part}");
            client.send(head.as_bytes());
            client.end_of_sending().unwrap();
            // An answer or none; but no work.
            if let Ok(answer) = client.answer() {
                assert_eq!(answer.status, 400);
            }
            let mut chunked = place.client();
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: ship\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
            chunked.send(head.as_bytes());
            if let Ok(answer) = chunked.answer() {
                assert_eq!(answer.status, 400);
            }
        }
    }
    let read = place.client().post("/fs/read_file", &json!({"path": "broken"}));
    assert_eq!(read, Err((404, "file_not_found".into())));
}

pub(crate) fn a_chunked_body_is_read_as_any_other(place: &dyn Place) {
    let client = &mut place.client();
    let body = json!({"command": "echo chunked", "timeout": 10}).to_string();
    let mut request =
        b"POST /shell/exec HTTP/1.1\r\nhost: ship\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in body.as_bytes().chunks(7) {
        request.extend(format!("{:x}\r\n", piece.len()).bytes());
        request.extend_from_slice(piece);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    assert_eq!(client.raw(&request).unwrap().json()["stdout"], "chunked\n");
    client.shell_ok("true");
}

pub(crate) fn what_is_no_http_is_refused(place: &dyn Place) {
    let long = format!("GET /{} HTTP/1.1\r\nhost: ship\r\n\r\n", "x".repeat(100_000));
    let headers = format!("GET /health HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000));
    let large = format!("GET /health HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    for words in [
        "GARBAGE\r\n\r\n",
        "GET\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        &long,
        &headers,
        &large,
    ] {
        let mut client = place.client();
        // It may be refused, and closed, before all of it was sent.
        let _ = client.try_send(words.as_bytes());
        match client.answer() {
            Ok(answer) => assert!((400..500).contains(&answer.status), "{words:.40}: {}", answer.head),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{words:.40}"),
        }
    }
    lives(place);
}

pub(crate) fn a_head_that_does_not_end_is_let_go(place: &dyn Place) {
    let mut slow = place.client().into_stream();
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: sh").unwrap();
    lives(place);
    slow.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (began, mut said) = (Instant::now(), Vec::new());
    slow.read_to_end(&mut said).unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(!String::from_utf8_lossy(&said).contains("healthy"));
}

pub(crate) fn requests_in_one_write_are_answered_in_order(place: &dyn Place) {
    let client = &mut place.client();
    let mut all = String::new();
    for turn in 0..40 {
        let path = if turn % 3 == 0 { "/health" } else { "/nothing" };
        all.push_str(&format!("GET {path} HTTP/1.1\r\nhost: ship\r\n\r\n"));
    }
    client.send(all.as_bytes());
    for turn in 0..40 {
        assert_eq!(client.answer().unwrap().status, if turn % 3 == 0 { 200 } else { 404 }, "{turn}");
    }
}

pub(crate) fn bad_requests_get_a_clear_answer_and_the_connection_goes_on(place: &dyn Place) {
    let client = &mut place.client();
    let code = |answer: bay_ship_tests::Answer| answer.result().unwrap_err();
    assert_eq!(code(client.get("/nothing")), (404, "not_found".into()));
    assert_eq!(code(client.get("/shell/exec")), (405, "method_not_allowed".into()));
    assert_eq!(code(client.post_bytes("/shell/exec", b"{\"command\": ")), (400, "validation_error".into()));
    assert_eq!(code(client.post_bytes("/shell/exec", b"[]")), (400, "validation_error".into()));
    assert_eq!(code(client.post_bytes("/fs/read_file", b"\xff\xfe")), (400, "validation_error".into()));
    for body in [
        json!({"command": "true", "timeout": 0}),
        json!({"command": "true", "timeout": 3601}),
        json!({"command": "tr\0ue", "timeout": 1}),
        json!({"command": "x".repeat(200_000), "timeout": 1}),
        json!({"command": "true", "timeout": 1, "env": {"A-B": ""}}),
        json!({"command": "true", "timeout": 1, "env": {"A": "\0"}}),
    ] {
        assert_eq!(client.post("/shell/exec", &body), Err((400, "validation_error".into())));
    }
    let long = json!({"command": format!(": {}", "x".repeat(120_000)), "timeout": 10});
    assert!(client.shell_with(&long).success);
    assert_eq!(client.python_within("1", 1).output, "1");
    assert_eq!(
        client.post("/ipython/exec", &json!({"code": "1", "timeout": 0})),
        Err((400, "validation_error".into()))
    );
}

pub(crate) fn a_body_beyond_the_bound_is_refused_unread(place: &dyn Place) {
    let client = &mut place.client();
    let head = "POST /fs/write_file HTTP/1.1\r\nhost: ship\r\ncontent-length: 90000000\r\n\r\n";
    assert_eq!(client.raw(head.as_bytes()).unwrap().result(), Err((413, "payload_too_large".into())));
}
