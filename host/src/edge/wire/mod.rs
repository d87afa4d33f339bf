//! What clients send and get, apart from what adapters describe.

mod audit;
mod capability;
mod create;
mod fields;
pub mod files;
mod gc;
mod key;
mod locker;
mod sandbox;
pub mod schema;
mod token;
mod update;

pub use audit::{AuditEntry, AuditPage, FailureEntry, FailureList};
pub use capability::{Capabilities, CapabilityOffer, CapabilityOperation};
pub use create::{CreateSandbox, Start};
pub use gc::{GcRun, GcStatus, gc_tasks};
pub use key::{CreateKey, CreatedKey, KeyList, KeyObject};
pub use locker::{
    ChangeLocker, ChangeLockerRequest, CreateLocker, CreateLockerRequest, DeleteFile, ListFiles,
    LockerObject, LockerPage, ReadFile, WriteFile,
};
pub use sandbox::{container_objects, sandbox_object};
pub use token::{CreateToken, CreatedToken, TokenRequest};
pub use update::{ExtendTtl, UpdateSandbox};
