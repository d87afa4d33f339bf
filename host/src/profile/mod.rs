//! Profiles: what a sandbox is made of and may do. Tenants: which profiles each may use.

mod check;
mod current;
mod set;
mod types;

#[cfg(test)]
mod tests;

pub use current::Profiles;
pub use set::{DEFAULT_PROFILE, ProfileErrors, ProfileSet};
pub use types::{
    Container, DockerContainer, History, KnownPlugins, LocalContainer, Profile, Resources, TenantFile,
    TenantPlugin,
};
