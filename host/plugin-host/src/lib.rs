//! Bay's plugins: WebAssembly components that decide and plan, and never do I/O themselves.
//!
//! ```text
//! load       read the version → compile or take from cache → link        (PluginHost::load)
//! configure  check(config) or describe(config), once                     (PluginHost::load)
//! call       fresh instance → start → action → host performs → resume …  (RulesPlugin, RouterPlugin, AdapterPlugin)
//! ```
//!
//! Everything a guest answers is untrusted input. All of wasmtime stays in this crate.

mod abi;
mod cache;
mod engine;
mod error;
mod guest;
mod host;
mod json;
mod limits;
mod machine;
mod manifest;
mod plan;
mod plugin;
/// JSON Schemas of operations, ready to be applied.
pub mod schema;
mod store;
mod ticker;
mod types;
mod version;

pub use error::{LoadError, PluginError, PluginFault};
pub use host::{PluginHost, PluginSpec, Source};
pub use limits::{HostOptions, Limits, MAX_RETRIES};
pub use machine::Performer;
pub use plugin::{AdapterPlugin, Plugin, RouterPlugin, RulesPlugin};
pub use types::*;
