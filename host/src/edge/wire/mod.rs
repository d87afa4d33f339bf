//! What clients send and get, apart from what adapters describe.

mod create;
pub mod files;
mod sandbox;

pub use create::{CreateSandbox, Start};
pub use sandbox::{container_objects, sandbox_object};
