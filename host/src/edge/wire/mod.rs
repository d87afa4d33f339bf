//! What clients send and get, apart from what adapters describe.

mod create;
pub mod files;
mod sandbox;
mod update;

pub use create::{CreateSandbox, Start};
pub use sandbox::{container_objects, sandbox_object};
pub use update::{ExtendTtl, UpdateSandbox};
