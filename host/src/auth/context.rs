//! The context every operation carries. A store query without a tenant does not compile.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest tenant name, so that one cannot be used to grow every row and log line.
const MAX_TENANT: usize = 63;

/// The owner of a resource. Never appears in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// Accepts `[a-z0-9]([a-z0-9_-]{0,62})`.
    pub fn new(name: &str) -> Option<Self> {
        let first = name.bytes().next()?;
        let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let ok = (first.is_ascii_lowercase() || first.is_ascii_digit())
            && name.len() <= MAX_TENANT
            && name.bytes().all(rest);
        ok.then(|| Self(name.into()))
    }

    /// The tenant of a Bay that has only one.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Tenant {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Self::new(&name).ok_or_else(|| {
            format!("`{name}` is not a tenant name: 1-63 of a-z, 0-9, `_`, `-`, no sign first")
        })
    }
}

impl From<Tenant> for String {
    fn from(t: Tenant) -> Self {
        t.0.as_ref().to_owned()
    }
}

/// What a key may do beyond its own tenant's sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// Everything under `/v1/admin`.
    #[serde(rename = "admin")]
    Admin,
    /// `/ready` part by part and `/metrics`.
    #[serde(rename = "ops")]
    Ops,
    /// The data plane of lockers.
    #[serde(rename = "lockers:files")]
    LockersFiles,
}

impl Scope {
    /// As written in answers and rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Ops => "ops",
            Self::LockersFiles => "lockers:files",
        }
    }
}

/// One request: who asks, and how to name it in logs.
#[derive(Debug, Clone)]
pub struct OpContext {
    /// The owner of everything this request touches.
    pub tenant: Tenant,
    /// The key it came with; null when anonymous.
    pub key_id: Option<String>,
    /// What that key may do.
    pub scopes: Vec<Scope>,
    /// Bay's own id of the request (UUIDv7).
    pub request_id: String,
    /// The client's id of it, when it sent one.
    pub client_request_id: Option<String>,
}

impl OpContext {
    /// Whether the key has a scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// The one way to query across tenants. Only background code and start-up build it: the constructor is
/// visible to this crate alone and a test greps for its callers.
#[derive(Debug)]
pub struct SystemContext(());

impl SystemContext {
    pub(crate) fn for_background() -> Self {
        Self(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_names_are_plain() {
        for good in ["default", "acme", "a", "0-1_x"] {
            assert!(Tenant::new(good).is_some(), "{good}");
        }
        for bad in ["", "Acme", "-a", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert!(Tenant::new(bad).is_none(), "{bad}");
        }
    }
}
