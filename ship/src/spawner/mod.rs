//! Starting user code: the one thing the agent cannot do itself.
//!
//! `server` runs in init (or in the nest, where only one user id exists), `child` is what a new process does
//! between fork and exec, `client` is the agent's end.

pub(crate) mod child;
pub(crate) mod client;
pub(crate) mod hunt;
pub(crate) mod protocol;
pub(crate) mod seccomp;
pub(crate) mod server;
