//! What reads bytes that somebody else chose, as functions of bytes, for the fuzz targets in `tests/fuzz`. Nothing
//! here has state or does I/O, and the binary uses none of it.

use crate::files::RelPath;
use crate::init::config;
use crate::spawner::protocol::{Event, Request};

pub use crate::agent::fuzz::{query, range, route};
pub use crate::files::fuzz::{Unpacked, archive};
pub use crate::python::fuzz::{Heard, frames, kernel_stream, signed};

/// A path from a request in its plain form; `None` when it is refused.
pub fn path(text: &str) -> Option<String> {
    RelPath::parse("path", text).ok().map(|path| path.text())
}

/// The start-up message on init's stdin: the names of the environment it gives; `Err` says why it is refused.
pub fn start_message(bytes: &[u8]) -> Result<Vec<String>, String> {
    config::parse(bytes).map(|config| config.env.into_keys().collect())
}

/// A datagram from the agent to the spawner, read and written again; `None` when it is refused.
pub fn spawner_request(bytes: &[u8]) -> Option<Vec<u8>> {
    Request::decode(bytes).ok()?.encode()
}

/// A datagram from the spawner to the agent, read and written again; `None` when it is refused.
pub fn spawner_event(bytes: &[u8]) -> Option<Vec<u8>> {
    Event::decode(bytes).ok().map(|event| event.encode().to_vec())
}
