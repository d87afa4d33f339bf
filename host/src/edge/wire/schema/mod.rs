//! The shapes of bodies, for the document: what handlers and the store write as JSON, field by field. Tests hold
//! real answers against them.

mod execution;
mod ops;
mod sandbox;

pub use execution::{Annotation, Cleared, Execution, HistoryEntry, HistoryPage, Running};
pub use ops::{Profile, ProfileContainer, ProfileList, Resources, Word};
pub use sandbox::{
    ContainerState, CreateSandboxBody, ExtendTtlBody, LookQuery, Sandbox, SandboxAction, SandboxPage,
    SandboxQuery, SandboxStatusWord, StartMode, StatusReason, UpdateSandboxBody, WaitFor,
};
