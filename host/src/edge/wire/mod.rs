//! What clients send and get, apart from what adapters describe.

mod audit;
mod create;
mod fields;
mod key;
mod locker;
mod sandbox;
mod token;
mod update;

pub use audit::{AuditEntry, AuditPage, FailureEntry, FailureList};
pub use create::{CreateSandbox, Start};
pub use key::{CreateKey, CreatedKey, KeyList, KeyObject};
pub use locker::{
    ChangeLocker, ChangeLockerRequest, CreateLocker, CreateLockerRequest, DeleteFile, ListFiles,
    LockerObject, LockerPage, ReadFile, WriteFile,
};
pub use sandbox::{container_objects, sandbox_object};
pub use token::{CreateToken, CreatedToken, TokenRequest};
pub use update::{ExtendTtl, UpdateSandbox};
