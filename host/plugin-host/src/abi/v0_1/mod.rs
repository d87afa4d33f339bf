//! `wit/since-v0.1.0`.

pub(crate) mod adapter;
pub(crate) mod router;
pub(crate) mod rules;

use crate::PluginFault;

/// Longest text for a person.
const MAX_MESSAGE: usize = 4096;

/// What a guest answered does not fit the contract.
fn broken(why: impl Into<String>) -> PluginFault {
    PluginFault::Contract(why.into())
}

/// Types that the roles share, generated once.
mod bindings {
    /// `rules-plugin`.
    pub(crate) mod rules {
        wasmtime::component::bindgen!({
            path: "../../wit/since-v0.1.0",
            world: "rules-plugin",
            exports: { default: async },
            require_store_data_send: true,
        });
    }
    /// `router-plugin`.
    pub(crate) mod router {
        wasmtime::component::bindgen!({
            path: "../../wit/since-v0.1.0",
            world: "router-plugin",
            exports: { default: async },
            require_store_data_send: true,
            with: { "bay:plugin/types": super::rules::bay::plugin::types },
        });
    }
    /// `adapter-plugin`.
    pub(crate) mod adapter {
        wasmtime::component::bindgen!({
            path: "../../wit/since-v0.1.0",
            world: "adapter-plugin",
            exports: { default: async },
            require_store_data_send: true,
            with: { "bay:plugin/types": super::rules::bay::plugin::types },
        });
    }
}
