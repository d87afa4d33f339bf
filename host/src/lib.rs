//! Bay: safe, persistent sandboxes for AI agents, extended by WebAssembly components.
//!
//! ```text
//!  REST ──▶ edge ──▶ invoke ──▶ rules ──▶ router ──▶ session ──▶ adapter ──▶ runtime in a sandbox
//!                     │         (wasm)     (wasm)       │          (wasm)        (Ship, native)
//!                     └── record ◀── store              └── driver
//! ```

pub mod cli;
pub mod config;
pub mod telemetry;

pub mod app;
pub mod audit;
pub mod auth;
pub mod catalog;
pub mod credentials;
pub mod driver;
pub mod edge;
pub mod execution;
pub mod invoke;
pub mod locker;
pub mod path;
pub mod places;
pub mod plugins;
pub mod profile;
pub mod rules;
pub mod runtime;
pub mod sandbox;
pub mod session;
pub mod store;
pub mod streams;

pub mod background;
pub mod reload;

pub mod error;
pub mod id;
pub mod instance;
pub mod time;

#[cfg(test)]
mod testing;
