//! Server-sent events, rendered: one line of JSON each, so that no text inside can end the event.

use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{self, HeaderValue};
use serde::Serialize;
use tokio::sync::mpsc;

use super::body::{Body, Cut};

/// How often a quiet stream says something: proxies end what says nothing.
pub(crate) const KEEP_AWAKE: Duration = Duration::from_secs(15);

/// Content type of a stream of events.
pub(crate) const CONTENT_TYPE: &str = "text/event-stream";

/// One event. `name` is one of ours; `id` is what a client sends back as `Last-Event-ID`.
pub(crate) fn event(name: &str, id: Option<u64>, data: &impl Serialize) -> Bytes {
    let mut out = id.map(|id| format!("id: {id}\n")).unwrap_or_default().into_bytes();
    out.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    let before = out.len();
    // JSON text has no line ends: they are escaped within its strings. Our own types always serialise.
    if serde_json::to_writer(&mut out, data).is_err() {
        out.truncate(before);
        out.extend_from_slice(b"{}");
    }
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// A line that a client ignores and a proxy takes for life.
pub(crate) fn comment() -> Bytes {
    Bytes::from_static(b": still here\n\n")
}

/// The answer that carries rendered events.
pub(super) fn response(events: mpsc::Receiver<Result<Bytes, Cut>>) -> Response<Body> {
    let mut response = Response::new(Body::Stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    proptest! {
        #[test]
        fn an_event_is_one_line_of_json_whatever_its_text(text: String, id: u64) {
            let rendered = event("stdout", Some(id), &json!({"text": text}));
            let rendered = std::str::from_utf8(&rendered).unwrap();
            let lines: Vec<&str> = rendered.split('\n').collect();
            prop_assert_eq!(lines.len(), 5);
            prop_assert_eq!(lines[0], format!("id: {id}"));
            prop_assert_eq!(lines[1], "event: stdout");
            let data: Value = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
            prop_assert_eq!(&data["text"], &text);
            prop_assert!(!rendered.contains('\r'));
        }
    }
}
