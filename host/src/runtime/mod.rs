//! The client to runtimes: the handshake on every connection, pooled HTTP over [`Driver::dial`].
//!
//! One [`RuntimeClient`] per container and generation owns its own pool, so a connection can never be reused
//! across sessions; it goes away with the session.
//!
//! [`Driver::dial`]: crate::driver::Driver::dial

mod client;
mod conditional;
mod connect;
mod frames;
mod performer;
mod progress;
mod relay;
mod tap;
mod upgrade;

pub use client::{RequestBody, RuntimeClient, RuntimeError, RuntimeResponse};
pub use performer::{CallerRequest, Errand, Forwarded, RuntimePerformer, Unreached};
pub use tap::{Garbled, Tap};
pub use upgrade::{ClientUpgrade, Close, Endings};
