//! What each route does: read the request, ask the part of Ship that knows, answer. One file a capability.

pub(super) mod archive;
pub(super) mod files;
pub(super) mod python;
pub(super) mod shell;
pub(super) mod watch;
