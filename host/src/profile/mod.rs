//! Profiles: what a sandbox is made of and may do. Tenants: which profiles each may use.

mod check;
mod current;
mod files_only;
mod set;
mod types;

#[cfg(test)]
mod tests;

pub use current::Profiles;
pub use files_only::{FILESYSTEM, files_only};
pub use set::{DEFAULT_PROFILE, ProfileErrors, ProfileSet};
pub use types::{
    Container, DockerContainer, History, KnownPlugins, LocalContainer, Profile, Resources, TenantFile,
    TenantPlugin,
};
