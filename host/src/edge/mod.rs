//! HTTP: one table of routes, handlers that read as recipes, wire types, and what every request passes.
//!
//! Nothing beneath this module knows status codes or headers.

pub mod admin_socket;
pub mod answer;
pub mod body;
pub mod caller;
pub mod credential;
pub mod form;
pub mod handlers;
pub mod idempotency;
pub mod incoming;
pub mod input;
pub mod middleware;
pub mod openapi;
pub mod router;
pub mod server;
pub mod websocket;
pub mod wire;
