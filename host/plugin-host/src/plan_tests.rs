use proptest::prelude::*;

use super::*;

fn good() -> PlannedRequest {
    PlannedRequest {
        method: "POST".into(),
        path: vec!["fs".into(), "read_file".into()],
        query: vec![("path".into(), "a b&c=../x".into())],
        headers: vec![("content-type".into(), "application/json".into())],
        body: Some(b"{}".to_vec()),
        timeout_ms: Some(1000),
        ..PlannedRequest::default()
    }
}

fn refused(change: impl FnOnce(&mut PlannedRequest)) -> String {
    let mut request = good();
    change(&mut request);
    check(&request, &Grants::new(), &Limits::default()).unwrap_err()
}

#[test]
fn an_ordinary_request_passes() {
    assert_eq!(check(&good(), &Grants::new(), &Limits::default()), Ok(()));
}

#[test]
fn a_grant_must_be_held() {
    let granted = |r: &mut PlannedRequest| r.target = Target::Granted("api".into());
    assert!(refused(granted).contains("no grant named `api`"));
    let mut request = good();
    granted(&mut request);
    assert_eq!(check(&request, &Grants::from(["api".to_owned()]), &Limits::default()), Ok(()));
}

#[test]
fn methods_come_from_a_list() {
    for method in ["CONNECT", "TRACE", "get", "", "GET /admin HTTP/1.1\r\n"] {
        assert!(refused(|r| r.method = method.into()).contains("is not one of"), "{method}");
    }
}

#[test]
fn path_segments_cannot_climb_or_vanish() {
    for segment in ["", ".", "..", "a\0b"] {
        assert!(refused(|r| r.path.push(segment.into())).contains("path segment"), "{segment:?}");
    }
}

#[test]
fn the_hosts_headers_are_the_hosts() {
    for name in
        ["authorization", "cookie", "host", "upgrade", "content-length", "x-bay-tenant", "x-forwarded-for"]
    {
        let words = refused(|r| r.headers.push((name.into(), "x".into())));
        assert!(words.contains("the host's to set"), "{words}");
    }
    for name in ["", "a b", "a:", "ä", "a\r\nb"] {
        assert!(
            refused(|r| r.headers.push((name.into(), "x".into()))).contains("no header name"),
            "{name:?}"
        );
    }
    for value in ["a\r\nb", "a\nb", "a\0", "ä", "\u{7f}"] {
        assert!(
            refused(|r| r.headers.push(("x-a".into(), value.into()))).contains("plain ASCII"),
            "{value:?}"
        );
    }
}

#[test]
fn everything_is_bounded() {
    let limits = Limits::default();
    refused(|r| r.path = vec!["a".into(); MAX_SEGMENTS + 1]);
    refused(|r| r.path = vec!["a".repeat(MAX_SEGMENT + 1)]);
    refused(|r| r.query = vec![("a".into(), "b".into()); MAX_QUERY + 1]);
    refused(|r| r.headers = vec![("a".into(), "b".into()); MAX_HEADERS + 1]);
    refused(|r| r.query = vec![("a".into(), "b".repeat(MAX_TEXT)); 8]);
    refused(|r| r.body = Some(vec![0; limits.max_answer_bytes + 1]));
    refused(|r| r.timeout_ms = Some(0));
}

proptest! {
    /// Whatever passes can be written as an HTTP/1.1 head without a way out of it.
    #[test]
    fn what_passes_cannot_split_a_head(
        method in "[A-Z]{0,8}|\\PC{0,8}",
        path in prop::collection::vec("\\PC{0,8}|\\.{0,3}|[\\x00-\\x7f]{0,6}", 0..6),
        headers in prop::collection::vec(("[a-zA-Z:\\-\\r\\n ]{0,12}", "[\\x00-\\x7f]{0,12}|\\PC{0,6}"), 0..6),
    ) {
        let request = PlannedRequest { method, path, headers, ..good() };
        if check(&request, &Grants::new(), &Limits::default()).is_ok() {
            prop_assert!(METHODS.contains(&request.method.as_str()));
            prop_assert!(request.path.iter().all(|s| !s.is_empty() && s != "." && s != ".." && !s.contains('\0')));
            for (name, value) in &request.headers {
                prop_assert!(!RESERVED.contains(&name.as_str()));
                prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
                prop_assert!(value.bytes().all(|b| b == b'\t' || (32..127).contains(&b)));
            }
        }
    }
}
