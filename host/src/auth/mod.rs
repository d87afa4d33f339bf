//! Who asks: principals, keys, and the context that every operation carries.

mod context;
pub mod keys;

pub use context::{OpContext, Scope, SystemContext, Tenant};
