//! Sandbox tokens as clients ask for them.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::fields::Fields;
use crate::auth::token::MAX_CAPABILITIES;
use crate::error::ApiResult;

/// Longest life of a token, in seconds.
const MAX_TTL: u64 = 3600;
/// Its life unless the client says otherwise, in seconds.
const DEFAULT_TTL: u64 = 900;

/// The body of `POST /v1/sandboxes/{id}/tokens`.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the document's shape; `parse` reads it so that every complaint comes at once")]
pub struct CreateToken {
    /// What its holder may use: some of the sandbox's capabilities.
    #[schema(example = json!(["terminal"]), min_items = 1, max_items = 32)]
    capabilities: Vec<String>,
    /// Seconds until it ends. Default: 900.
    #[schema(example = 900, minimum = 1, maximum = 3600)]
    ttl: Option<u64>,
}

/// A checked body.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Sorted, each once.
    pub capabilities: Vec<String>,
    /// How long it lasts.
    pub ttl: Duration,
}

impl CreateToken {
    /// Checks a body; unknown fields are ignored.
    pub fn parse(body: &Value) -> ApiResult<TokenRequest> {
        let mut fields = Fields::of(body);
        let names = fields.list("capabilities", MAX_CAPABILITIES);
        if fields.given("capabilities").is_none() {
            fields.complain("capabilities", "is missing: name what the token is for");
        }
        let mut capabilities: Vec<_> = names.unwrap_or_default().into_iter().map(str::to_owned).collect();
        capabilities.sort_unstable();
        capabilities.dedup();
        let ttl = Duration::from_secs(fields.count("ttl", MAX_TTL).unwrap_or(DEFAULT_TTL));
        fields.checked(TokenRequest { capabilities, ttl })
    }
}

/// A token just made.
#[derive(Serialize, ToSchema)]
pub struct CreatedToken {
    /// `bst_…`: send it as `Authorization: Bearer`, or with a WebSocket as the subprotocol `bearer.<token>`.
    #[schema(example = "bst_eyJzIjoic2J4X…")]
    pub token: String,
    /// When it ends, at the latest: it also ends with the sandbox and with the key that made it.
    #[schema(format = DateTime)]
    pub expires_at: String,
    /// What it is for, sorted.
    #[schema(example = json!(["terminal"]))]
    pub capabilities: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_needs_capabilities_and_lives_an_hour_at_most() {
        let body = json!({ "capabilities": ["shell", "python", "shell"] });
        let wanted = CreateToken::parse(&body).unwrap();
        assert_eq!(wanted.capabilities, ["python", "shell"]);
        assert_eq!(wanted.ttl.as_secs(), DEFAULT_TTL);
        for bad in [
            json!({}),
            json!({ "capabilities": [] }),
            json!({ "capabilities": "shell" }),
            json!({ "capabilities": [1] }),
            json!({ "capabilities": ["shell"], "ttl": 3601 }),
            json!({ "capabilities": ["shell"], "ttl": 0 }),
            json!({ "capabilities": ["shell"], "ttl": "60" }),
        ] {
            assert!(CreateToken::parse(&bad).is_err(), "{bad}");
        }
    }
}
