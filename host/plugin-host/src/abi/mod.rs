//! One module for each released WIT folder: its generated bindings, and what turns them into [`crate::types`].
//!
//! A new folder adds a module here; what calls plugins sees native types only.

pub(crate) mod v0_1;
