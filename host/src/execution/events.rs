//! Server-sent events as Bay itself says them: one line of JSON each, so that no text inside can end the event.

use bytes::Bytes;
use serde_json::Value;

/// Content type of a stream of events.
pub(crate) const CONTENT_TYPE: &str = "text/event-stream";

/// One event. `id` is what a client sends back as `Last-Event-ID`: 0 of what comes before the runtime's own.
pub(crate) fn event(name: &str, id: u64, data: &Value) -> Bytes {
    // JSON text has no line ends: they are escaped within its strings.
    format!("id: {id}\nevent: {name}\ndata: {data}\n\n").into()
}

/// A line that a client ignores and a proxy takes for life.
pub(crate) fn comment() -> Bytes {
    Bytes::from_static(b": still here\n\n")
}
