//! What Bay carries in its own binary: the default components and the runtime, built by this crate's build script.
//!
//! Each can be replaced from `bay.toml` without a rebuild; these are what a Bay without configuration uses.

/// Component of the `rules-default` plugin.
pub const RULES_DEFAULT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rules-default.wasm"));
/// Component of the `router-default` plugin.
pub const ROUTER_DEFAULT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/router-default.wasm"));
/// Component of the `adapter-ship` plugin.
pub const ADAPTER_SHIP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/adapter-ship.wasm"));
/// Ship, a static binary for this machine's architecture.
pub const SHIP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ship"));

/// The default components, by plugin name.
pub const COMPONENTS: &[(&str, &[u8])] =
    &[("rules-default", RULES_DEFAULT), ("router-default", ROUTER_DEFAULT), ("adapter-ship", ADAPTER_SHIP)];
