//! Bay's plugins: WebAssembly components that decide and plan, and never do I/O themselves.
//!
//! ```text
//! load       read the version → compile or take from cache → link        (PluginHost::load)
//! configure  describe(config), checked                                   (once a load)
//! call       fresh instance → start → action → host performs → resume …  (RulesPlugin, RouterPlugin, AdapterPlugin)
//! ```
//!
//! Everything a guest answers is untrusted input. All of wasmtime stays in this crate.

mod error;
mod host;
mod limits;
mod types;

pub use error::{LoadError, PluginError, PluginFault};
pub use host::{AdapterPlugin, Performer, Plugin, PluginHost, PluginSpec, RouterPlugin, RulesPlugin, Source};
pub use limits::{HostOptions, Limits, MAX_RETRIES};
pub use types::*;
