//! What ids, times and error bodies look like, checked wherever one is seen.

use serde_json::Value;

use crate::http::Response;

/// Whether `text` is `<prefix>` and a ULID in lower case.
pub fn is_id(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|ulid| {
        ulid.len() == 26
            && ulid.starts_with(|c: char| ('0'..='7').contains(&c))
            && ulid.bytes().all(|b| b"0123456789abcdefghjkmnpqrstvwxyz".contains(&b))
    })
}

/// Whether `text` is RFC 3339, UTC, `Z`, milliseconds.
pub fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

/// Whether `text` is a UUIDv7 in lower case.
pub fn is_uuid7(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|p| p.len()).collect();
    lengths == [8, 4, 4, 4, 12]
        && text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && parts[2].starts_with('7')
        && parts[3].starts_with(['8', '9', 'a', 'b'])
}

/// Checks what holds for every answer: a request id on all, and the error body on every failure.
#[track_caller]
pub fn check(response: &Response) {
    let asked = &response.asked;
    let id = response.header("x-request-id").unwrap_or_else(|| {
        panic!(
            "{asked}: {} without X-Request-Id: {:?} {}",
            response.status,
            response.headers,
            response.brief()
        )
    });
    assert!(is_uuid7(id), "{asked}: X-Request-Id {id} is not a UUIDv7");
    if (200..300).contains(&response.status) {
        return;
    }
    let body = response.json();
    let error = &body["error"];
    let keys = |v: &Value| v.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    assert_eq!(keys(&body), ["error"], "{asked}: {body}");
    let mut fields = keys(error);
    fields.sort();
    assert_eq!(fields, ["code", "details", "message", "request_id", "retryable"], "{asked}: {body}");
    assert_eq!(error["request_id"], id, "{asked}: {body}");
    assert!(error["details"].is_object(), "{asked}: {body}");
    assert!(error["retryable"].is_boolean(), "{asked}: {body}");
    let code = error["code"].as_str().unwrap_or_default();
    assert!(!error["message"].as_str().unwrap_or_default().trim().is_empty(), "{asked}: {body}");
    let status = STATUS_OF.iter().find(|(c, _)| *c == code);
    assert_eq!(status.map(|(_, s)| *s), Some(response.status), "{asked}: {body}");
    assert!(
        response.header("content-type").is_some_and(|t| t.starts_with("application/json")),
        "{asked}: {:?}",
        response.headers
    );
    if response.status == 401 {
        assert_eq!(response.header("www-authenticate"), Some("Bearer"), "{asked}");
    }
    if ["session_not_ready", "overloaded"].contains(&code) {
        assert!(response.header("retry-after").is_some(), "{asked}: {:?}", response.headers);
    }
}

/// The error table of the contract: each code and its status.
pub const STATUS_OF: &[(&str, u16)] = &[
    ("validation_error", 400),
    ("invalid_path", 400),
    ("capability_not_supported", 400),
    ("is_a_directory", 400),
    ("not_a_directory", 400),
    ("unauthorized", 401),
    ("forbidden", 403),
    ("denied_by_rule", 403),
    ("permission_denied", 403),
    ("not_found", 404),
    ("file_not_found", 404),
    ("method_not_allowed", 405),
    ("conflict", 409),
    ("already_exists", 409),
    ("sandbox_expired", 409),
    ("sandbox_ttl_infinite", 409),
    ("state_lost", 409),
    ("payload_too_large", 413),
    ("unsupported_media_type", 415),
    ("range_not_satisfiable", 416),
    ("gc_running", 423),
    ("rate_limited", 429),
    ("quota_exceeded", 429),
    ("busy", 429),
    ("internal_error", 500),
    ("runtime_error", 502),
    ("plugin_error", 502),
    ("session_not_ready", 503),
    ("overloaded", 503),
    ("unavailable", 503),
    ("network_unavailable", 503),
    ("timeout", 504),
    ("storage_full", 507),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_accept_their_own_and_nothing_else() {
        assert!(is_id("sbx_", "sbx_01arz3ndektsv4rrffq69g5fav"));
        assert!(!is_id("sbx_", "sbx_01ARZ3NDEKTSV4RRFFQ69G5FAV"));
        assert!(!is_id("sbx_", "lkr_01arz3ndektsv4rrffq69g5fav"));
        assert!(is_time("2026-11-23T23:44:53.001Z"));
        assert!(!is_time("2026-11-23T23:44:53Z"));
        assert!(!is_time("2026-11-23T23:44:53.001+00:00"));
        assert!(is_uuid7("0192f3a4-7c1e-7abc-9def-0123456789ab"));
        assert!(!is_uuid7("0192f3a4-7c1e-4abc-9def-0123456789ab"));
    }
}
