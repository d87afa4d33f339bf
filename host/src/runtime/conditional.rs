//! `If-None-Match`, answered by the host for every runtime that gives etags.

use http::{HeaderMap, StatusCode, header};

/// Whether the client has what the runtime is about to send (RFC 9110, section 13.1.2: compared weakly).
pub(super) fn is_known(asked: &HeaderMap, status: StatusCode, head: &HeaderMap) -> bool {
    let Some(etag) =
        head.get(header::ETAG).and_then(|v| v.to_str().ok()).filter(|_| status == StatusCode::OK)
    else {
        return false;
    };
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let lines = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|tag| tag.trim() == "*" || strong(tag) == strong(etag))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_whole_answer_with_that_etag_is_known() {
        let known = |asked: &'static str, status| {
            let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(asked))]);
            let head = HeaderMap::from_iter([(header::ETAG, HeaderValue::from_static("\"b\""))]);
            is_known(&asked, status, &head)
        };
        for asked in ["\"b\"", "\"a\", \"b\"", "W/\"b\"", "*"] {
            assert!(known(asked, StatusCode::OK), "{asked}");
            assert!(!known(asked, StatusCode::PARTIAL_CONTENT), "{asked}");
        }
        assert!(!known("\"a\"", StatusCode::OK));
        assert!(!is_known(&HeaderMap::new(), StatusCode::OK, &HeaderMap::new()));
    }
}
