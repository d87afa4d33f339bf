//! What clients send and get, apart from what adapters describe.

mod capability;
mod create;
mod sandbox;
pub mod schema;

pub use capability::{Capabilities, CapabilityOffer, CapabilityOperation};
pub use create::{CreateSandbox, Start};
pub use sandbox::{container_objects, sandbox_object};
