//! Server-sent events: what an event stream's bytes look like.
//!
//! An event is `id: N`, `event: NAME` and one line `data: JSON`, then an empty line. JSON text has no raw line ends,
//! so nothing in the data can start a line of its own.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::body::{Body, Cut};

/// How often a quiet stream says something, so that proxies do not take it for dead.
pub(crate) const KEEP_AWAKE: Duration = Duration::from_secs(15);

/// One event. `name` is ours, a plain word; `data` is any one JSON value.
pub(crate) fn event<T: Serialize>(id: u64, name: &'static str, data: &T) -> Bytes {
    // Our own types always serialise; an empty object stands in for the impossible branch.
    let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
    format!("id: {id}\nevent: {name}\ndata: {data}\n\n").into()
}

/// A line that every client skips: keeps proxies awake.
pub(crate) fn comment(text: &'static str) -> Bytes {
    format!(": {text}\n\n").into()
}

/// The answer that carries a stream of rendered events.
pub(super) fn response(events: mpsc::Receiver<Result<Bytes, Cut>>) -> Response<Body> {
    let mut response = Response::new(Body::Stream(events));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_has_its_id_its_name_and_one_line_of_data() {
        let rendered = event(7, "stdout", &json!({"text": "a\nb\r\u{2028}"}));
        assert_eq!(text(&rendered), "id: 7\nevent: stdout\ndata: {\"text\":\"a\\nb\\r\u{2028}\"}\n\n");
    }

    #[test]
    fn a_comment_is_no_event() {
        assert_eq!(text(&comment("awake")), ": awake\n\n");
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_line(words: String) {
            let rendered = event(1, "x", &json!({"text": words}));
            let lines: Vec<_> = text(&rendered).split(['\n', '\r']).collect();
            prop_assert_eq!(lines.len(), 5, "id, event, data, and the two ends");
            let data: Value = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
            prop_assert_eq!(data["text"].as_str(), Some(words.as_str()));
        }
    }
}
