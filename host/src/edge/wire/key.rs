//! API keys as administrators make and see them. A hash is never among it, and a secret once.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::fields::{Fields, MAX_NAME};
use crate::auth::{Scope, Tenant};
use crate::credentials::KeyRequest;
use crate::error::ApiResult;
use crate::store::{KeyRow, Listing};
use crate::time::{from_rfc3339, now_ms, rfc3339};

/// Longest `expires_in`: a hundred years; what is longer is "never" misspelt.
const MAX_EXPIRES_IN: u64 = 3_155_760_000;

/// The body of `POST /v1/admin/keys`.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the document's shape; `parse` reads it so that every complaint comes at once")]
pub struct CreateKey {
    /// Whose key it is: any tenant, 1-63 of `a-z0-9_-`. Default: the administrator's own.
    #[schema(example = "acme", pattern = "^[a-z0-9][a-z0-9_-]{0,62}$")]
    tenant: Option<String>,
    /// What it is for, 1-128 bytes.
    #[schema(example = "build server", min_length = 1, max_length = 128)]
    name: Option<String>,
    /// `sandboxes`, `lockers:files`, `ops`, `admin`. Default: `sandboxes` alone.
    #[schema(example = json!(["sandboxes"]), min_items = 1, max_items = 4)]
    scopes: Option<Vec<String>>,
    /// Seconds from now until it works no more; not together with `expires_at`. Default: never.
    #[schema(example = 2_592_000, minimum = 1, maximum = 3_155_760_000_u64)]
    expires_in: Option<u64>,
    /// When it works no more, RFC 3339, in the future.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

impl CreateKey {
    /// Checks a body; unknown fields are ignored. `own` is the administrator's tenant.
    pub fn parse(body: &Value, own: &Tenant) -> ApiResult<KeyRequest> {
        let mut fields = Fields::of(body);
        let tenant = match fields.given("tenant").map(|v| v.as_str().and_then(Tenant::new)) {
            None => own.clone(),
            Some(Some(tenant)) => tenant,
            Some(None) => {
                fields.complain("tenant", "must be 1-63 of a-z, 0-9, `_` and `-`, no sign first");
                own.clone()
            }
        };
        let name = fields.line("name", MAX_NAME).unwrap_or("made by the admin API").to_owned();
        let mut scopes = vec![Scope::Sandboxes];
        if let Some(texts) = fields.list("scopes", Scope::ALL.len()) {
            scopes = texts.iter().filter_map(|text| Scope::parse(text)).collect();
            if scopes.len() < texts.len() {
                fields.complain("scopes", "each must be sandboxes, lockers:files, ops or admin");
            }
        }
        let expires_at = expiry(&mut fields);
        fields.checked(KeyRequest { tenant, name, scopes, expires_at })
    }
}

fn expiry(fields: &mut Fields<'_>) -> Option<i64> {
    let seconds = fields.count("expires_in", MAX_EXPIRES_IN);
    let at = fields.given("expires_at");
    if seconds.is_some() && at.is_some() {
        fields.complain("expires_at", "give either `expires_in` or `expires_at`");
    }
    if let Some(at) = at {
        let parsed = at.as_str().and_then(from_rfc3339).filter(|at| *at > now_ms());
        if parsed.is_none() {
            fields.complain("expires_at", "must be a time in the future, as in 2030-01-31T12:00:00Z");
        }
        return parsed;
    }
    let ms = seconds.and_then(|s| i64::try_from(s).ok()).and_then(|s| s.checked_mul(1000));
    ms.map(|ms| now_ms().saturating_add(ms))
}

/// An API key, without its secret.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyObject {
    /// `key_…`
    #[schema(example = "key_01arz3ndektsv4rrffq69g5fav")]
    pub id: String,
    /// Whose requests it makes.
    #[schema(example = "acme")]
    pub tenant: String,
    /// What it is for.
    #[schema(example = "build server")]
    pub name: String,
    /// What it may do.
    #[schema(example = json!(["sandboxes"]))]
    pub scopes: Vec<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it works no more; null: never.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// When it was revoked; null: it was not.
    #[schema(format = DateTime)]
    pub revoked_at: Option<String>,
    /// When it was last used, up to a minute behind; null: never.
    #[schema(format = DateTime)]
    pub last_used_at: Option<String>,
}

impl From<KeyRow> for KeyObject {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id,
            tenant: row.tenant.into(),
            name: row.name,
            scopes: row.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            created_at: rfc3339(row.created_at),
            expires_at: row.expires_at.map(rfc3339),
            revoked_at: row.revoked_at.map(rfc3339),
            last_used_at: row.last_used_at.map(rfc3339),
        }
    }
}

/// An API key just made.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedKey {
    /// What is known of it from now on.
    #[serde(flatten)]
    pub key: KeyObject,
    /// The key itself, `bay_…`: shown here and never again.
    #[schema(example = "bay_01arz3ndektsv4rrffq69g5fav_…")]
    pub secret: String,
}

/// A page of API keys, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// The keys.
    pub items: Vec<KeyObject>,
    /// Where the next page begins; null on the last.
    pub next_cursor: Option<String>,
}

impl From<Listing<KeyRow>> for KeyList {
    fn from(page: Listing<KeyRow>) -> Self {
        Self {
            items: page.items.into_iter().map(KeyObject::from).collect(),
            next_cursor: page.next_cursor.map(|cursor| cursor.encode()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_body_is_a_key_for_sandboxes_of_ones_own_tenant() {
        let wanted = CreateKey::parse(&json!({ "unknown": 1 }), &Tenant::default_tenant()).unwrap();
        assert_eq!((wanted.tenant.as_str(), wanted.expires_at), ("default", None));
        assert_eq!(wanted.scopes, [Scope::Sandboxes]);
    }

    #[test]
    fn every_complaint_comes_at_once() {
        let own = Tenant::default_tenant();
        for body in [
            json!({ "tenant": "A", "name": "", "scopes": ["root"], "expires_in": 0, "expires_at": "soon" }),
            json!({ "tenant": 1, "name": "a\nb", "scopes": [], "expires_in": "1", "expires_at": "2020-01-01T00:00:00Z" }),
        ] {
            let error = CreateKey::parse(&body, &own).unwrap_err();
            let text = error.details.to_string();
            for field in ["tenant", "name", "scopes", "expires_in", "expires_at"] {
                assert!(text.contains(&format!("\"{field}\"")), "{field}: {text}");
            }
        }
        let both = json!({ "expires_in": 5, "expires_at": "2999-01-01T00:00:00Z" });
        assert!(CreateKey::parse(&both, &own).is_err());
    }
}
