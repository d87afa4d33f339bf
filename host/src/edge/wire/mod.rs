//! What clients send and get, apart from what adapters describe.

mod audit;
mod create;
mod gc;
mod locker;
mod sandbox;
mod update;

pub use audit::{AuditEntry, AuditPage, FailureEntry, FailureList};
pub use create::{CreateSandbox, Start};
pub use gc::{GcRun, GcStatus, gc_tasks};
pub use locker::{
    ChangeLocker, ChangeLockerRequest, CreateLocker, CreateLockerRequest, DeleteFile, ListFiles,
    LockerObject, LockerPage, ReadFile, WriteFile,
};
pub use sandbox::{container_objects, sandbox_object};
pub use update::{ExtendTtl, UpdateSandbox};
