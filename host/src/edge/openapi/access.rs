//! Who may call a route, as the document says it. One rule for each part of the surface: a route that falls under
//! none is not described as open, it fails the test that looks for its rule.

use serde_json::{Value, json};

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody, and nobody learns more by a key.
    Open,
    /// Anybody; a key of this scope learns more.
    Told(&'static str),
    /// A key with this scope.
    Scope(&'static str),
    /// A key, or a token of the sandbox for this capability.
    Guest(&'static str),
}

const SANDBOX: &str = "/v1/sandboxes/{id}/";

/// The rule for a path, if there is one.
pub(super) fn of(path: &str) -> Option<Access> {
    Some(match path {
        "/health" | "/docs" | "/docs/{file}" => Access::Open,
        "/ready" => Access::Told("ops"),
        "/openapi.json" => Access::Told("sandboxes"),
        "/metrics" => Access::Scope("ops"),
        _ if path.starts_with("/v1/admin/") => Access::Scope("admin"),
        _ if path.starts_with("/v1/lockers/{id}/files/") => Access::Scope("lockers:files"),
        _ if path.starts_with(SANDBOX) => beneath_sandbox(path),
        "/v1/sandboxes" | "/v1/sandboxes/{id}" | "/v1/lockers" | "/v1/lockers/{id}" | "/v1/profiles"
        | "/v1/capabilities" => Access::Scope("sandboxes"),
        _ => return None,
    })
}

fn beneath_sandbox(path: &str) -> Access {
    match path[SANDBOX.len()..].split('/').next().unwrap_or_default() {
        "extend_ttl" | "keepalive" | "stop" | "recover" | "tokens" | "history" => Access::Scope("sandboxes"),
        "python" => Access::Guest("python"),
        "shell" => Access::Guest("shell"),
        "filesystem" => Access::Guest("filesystem"),
        "terminal" => Access::Guest("terminal"),
        // Whatever ran them.
        "executions" => Access::Guest("python or shell"),
        _ => Access::Guest("the capability that the path names"),
    }
}

impl Access {
    /// Whether a credential is asked for.
    pub(super) fn is_guarded(self) -> bool {
        match self {
            Self::Open | Self::Told(_) => false,
            Self::Scope(_) | Self::Guest(_) => true,
        }
    }

    /// The `security` of an operation.
    pub(super) fn security(self) -> Value {
        let keys = |scope: &str| vec![json!({ "bearer": [scope] }), json!({ "key": [scope] })];
        match self {
            Self::Open => json!([]),
            Self::Told(scope) => [vec![json!({})], keys(scope)].concat().into(),
            Self::Scope(scope) => keys(scope).into(),
            Self::Guest(capability) => {
                [keys("sandboxes"), vec![json!({ "sandbox_token": [capability] })]].concat().into()
            }
        }
    }
}
