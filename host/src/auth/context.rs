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

/// What a key may do. A key without any may do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// Its tenant's sandboxes, lockers and profiles.
    #[serde(rename = "sandboxes")]
    Sandboxes,
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
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Sandboxes, Self::Admin, Self::Ops, Self::LockersFiles];

    /// From its text; null when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    /// As written in answers and rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandboxes => "sandboxes",
            Self::Admin => "admin",
            Self::Ops => "ops",
            Self::LockersFiles => "lockers:files",
        }
    }
}

/// What a sandbox token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The one sandbox.
    pub sandbox_id: String,
    /// Capabilities of it, sorted.
    pub capabilities: Vec<String>,
}

/// One request: who asks, and how to name it in logs.
#[derive(Debug, Clone)]
pub struct OpContext {
    /// The owner of everything this request touches.
    pub tenant: Tenant,
    /// The key it came with, or that made the token it came with; null when anonymous.
    pub key_id: Option<String>,
    /// What that key may do; nothing by itself where a token came.
    pub scopes: Vec<Scope>,
    /// Set where a sandbox token came instead of a key: then this is all it may do.
    pub grant: Option<Grant>,
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

/// The one way to query across tenants. Background code, start-up and authentication build it, none of which a client
/// steers; a handler gets one only from a request that came with the scope `admin`. The first constructor is visible
/// to this crate alone, and a test greps the edge for it.
#[derive(Debug)]
pub struct SystemContext(());

impl SystemContext {
    pub(crate) fn for_background() -> Self {
        Self(())
    }

    /// For a handler of `/v1/admin`: null unless the request may use those.
    pub fn for_admin(context: &OpContext) -> Option<Self> {
        context.has(Scope::Admin).then_some(Self(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert_eq!(Scope::parse("root"), None);
    }

    #[test]
    fn the_edge_crosses_tenants_for_admins_only() {
        for (path, text) in crate::testing::sources("edge") {
            assert!(!text.contains("SystemContext::for_background"), "{}: use for_admin", path.display());
        }
    }

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
