use std::net::SocketAddr;

use serde_json::json;

use super::client::Call;
use super::server::address_in;
use super::show::curl;

fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8114))
}

#[test]
fn the_line_to_paste_survives_quotes_and_never_holds_the_key() {
    let body = json!({ "code": "print('it''s')" });
    let line = curl(here(), &Call::json("POST", "/v1/sandboxes/sbx_1/python/exec", body));
    assert!(
        line.starts_with("curl -sS -X POST http://127.0.0.1:8114/v1/sandboxes/sbx_1/python/exec"),
        "{line}"
    );
    assert!(line.contains(r#"-d '{"code":"print('\''it'\'''\''s'\'')"}'"#), "{line}");
    assert!(line.contains(r#"-H "Authorization: Bearer $BAY_API_KEY""#), "{line}");
}

#[test]
fn a_query_is_quoted_and_a_get_needs_no_method() {
    let line = curl(here(), &Call::new("GET", "/v1/files?path=a/b.txt"));
    assert!(line.starts_with("curl -sS 'http://127.0.0.1:8114/v1/files?path=a/b.txt'"), "{line}");
    assert!(!line.contains("Content-Type"), "{line}");
}

#[test]
fn half_a_line_of_the_log_is_no_address() {
    assert_eq!(address_in("INFO listening on http://127.0.0.1:81"), None);
    assert_eq!(address_in("INFO listening on http://127.0.0.1:8114\n"), Some(here()));
    assert_eq!(address_in("{\"message\":\"listening on http://127.0.0.1:8114\"}\n"), Some(here()));
    assert_eq!(address_in("starting\n"), None);
}
