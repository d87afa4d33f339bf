//! Who asks: principals, keys, tokens, and the context that every operation carries.

mod context;
pub mod failures;
pub mod keys;
pub mod token;
pub mod uses;

pub use context::{Grant, OpContext, Scope, SystemContext, Tenant};
