//! What clients send and get, apart from what adapters describe.

mod create;
mod fields;
pub mod files;
mod key;
mod sandbox;
mod token;
mod update;

pub use create::{CreateSandbox, Start};
pub use key::{CreateKey, CreatedKey, KeyList, KeyObject};
pub use sandbox::{container_objects, sandbox_object};
pub use token::{CreateToken, CreatedToken, TokenRequest};
pub use update::{ExtendTtl, UpdateSandbox};
