//! What clients send and get, apart from what adapters describe.

mod create;
mod gc;
mod sandbox;
mod update;

pub use create::{CreateSandbox, Start};
pub use gc::{GcRun, GcStatus, gc_tasks};
pub use sandbox::{container_objects, sandbox_object};
pub use update::{ExtendTtl, UpdateSandbox};
