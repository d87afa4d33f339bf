//! Keys and sandbox tokens: making them, and finding out whose a presented one is.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::auth::failures::Failures;
use crate::auth::keys::ApiKey;
use crate::auth::token::{Claims, TokenKey};
use crate::auth::uses::Uses;
use crate::auth::{Grant, OpContext, Scope, SystemContext, Tenant};
use crate::error::{ApiError, ApiResult, Code};
use crate::store::{KeyRow, NewKey, SandboxRow, Store, StoreError};
use crate::time::now_ms;

/// What keys and tokens are checked with.
#[derive(Debug)]
pub struct Credentials {
    tokens: TokenKey,
    failures: Failures,
    uses: Arc<Uses>,
}

/// Whose credential it was.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The owner of what it may touch.
    pub tenant: Tenant,
    /// The key, or the one that made the token; null: an anonymous caller made it.
    pub key_id: Option<String>,
    /// What the key may do; nothing for a token.
    pub scopes: Vec<Scope>,
    /// What the token is bound to; null for a key.
    pub grant: Option<Grant>,
}

impl Credentials {
    /// From the instance's secret, and a bound on failures a minute and address.
    pub fn new(secret: &[u8], failures: u32) -> Self {
        Self { tokens: TokenKey::derive(secret), failures: Failures::new(failures), uses: Arc::default() }
    }

    /// The answer to a credential that was refused: 401, or 429 where that happens too often.
    pub fn refusal(&self, error: ApiError, peer: Option<IpAddr>) -> ApiError {
        // Only a refused credential counts; a store that is down is not the client's failure.
        let counted = peer.filter(|_| error.code == Code::Unauthorized);
        match counted.and_then(|address| self.failures.note(address, Instant::now())) {
            None => error,
            Some(wait) => ApiError::new(
                Code::RateLimited,
                "too many requests with a wrong key or token came from this address; correct it",
            )
            .after(wait),
        }
    }
}

impl App {
    /// Whose key this is. An unknown id and a wrong secret take the same path and give the same answer, and so do a
    /// revoked and an expired key.
    pub async fn authenticate_key(&self, text: &str) -> ApiResult<Holder> {
        let refused = || ApiError::new(Code::Unauthorized, "this API key is not known, or has expired");
        let key = ApiKey::parse(text).ok_or_else(refused)?;
        let row = self.store.find_key(&SystemContext::for_background(), &key.id()).await?;
        let good = key.verify(row.as_ref().map(|r| &r.hash));
        let now = now_ms();
        let row = row.filter(|r| good && r.is_valid(now)).ok_or_else(refused)?;
        self.note_use(&row, now);
        Ok(Holder { tenant: row.tenant, key_id: Some(row.id), scopes: row.scopes, grant: None })
    }

    /// What a sandbox token (`bst_…`) is good for. Refused as 401 alike: not made by this Bay, past its time, its
    /// sandbox deleted, or the key that made it no longer good for sandboxes.
    pub async fn authenticate_token(&self, text: &str) -> ApiResult<Holder> {
        let refused = || ApiError::new(Code::Unauthorized, "this sandbox token is not known, or has expired");
        let now = now_ms();
        let claims = self.credentials.tokens.open(text, now).ok_or_else(refused)?;
        let system = SystemContext::for_background();
        let sandbox = self.store.find_sandbox(&system, &claims.sandbox_id).await?;
        let sandbox = sandbox.filter(|s| s.deleted_at.is_none()).ok_or_else(refused)?;
        let stands = match &claims.key_id {
            None => self.config.server.allow_anonymous,
            Some(id) => self.store.find_key(&system, id).await?.is_some_and(|key| {
                key.is_valid(now) && key.tenant == sandbox.tenant && key.scopes.contains(&Scope::Sandboxes)
            }),
        };
        if !stands {
            return Err(refused());
        }
        Ok(Holder {
            tenant: sandbox.tenant,
            key_id: claims.key_id.clone(),
            scopes: Vec::new(),
            grant: Some(claims.grant()),
        })
    }

    /// A token for some capabilities of a sandbox, and when it ends: after `ttl`, or with the key that makes it.
    pub async fn mint_token(
        &self,
        context: &OpContext,
        sandbox: &SandboxRow,
        capabilities: Vec<String>,
        ttl: Duration,
    ) -> ApiResult<(String, i64)> {
        let after = now_ms().saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        let key = match &context.key_id {
            Some(id) => self.store.find_key(&SystemContext::for_background(), id).await?,
            None => None,
        };
        let expires_at = key.and_then(|key| key.expires_at).map_or(after, |end| end.min(after));
        let claims = Claims {
            sandbox_id: sandbox.id.clone(),
            key_id: context.key_id.clone(),
            capabilities,
            expires_at,
        };
        let token = self.credentials.tokens.sign(&claims).map_err(ApiError::internal)?;
        Ok((token, expires_at))
    }

    fn note_use(&self, key: &KeyRow, now: i64) {
        let uses = &self.credentials.uses;
        if !uses.is_due(&key.id, key.last_used_at, now) {
            return;
        }
        let (store, uses) = (self.store.clone(), Arc::clone(uses));
        let (tenant, id) = (key.tenant.clone(), key.id.clone());
        tokio::spawn(async move {
            if let Err(error) = store.key_used(&tenant, &id, now).await {
                tracing::debug!(%error, key_id = id, "the use of a key was not written down");
            }
            uses.written(&id);
        });
    }
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// Whose it will be.
    pub tenant: Tenant,
    /// What it is for, for people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Unix milliseconds; null: never.
    pub expires_at: Option<i64>,
}

/// Makes a key; the only moment at which its secret exists outside its owner's hands.
pub async fn create_key(store: &Store, wanted: KeyRequest) -> Result<(KeyRow, ApiKey), StoreError> {
    let key = ApiKey::mint().map_err(|e| StoreError::Unavailable { reason: e.to_string() })?;
    let mut scopes = wanted.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let new = NewKey {
        id: key.id(),
        name: wanted.name,
        hash: key.hash(),
        scopes,
        created_at: now_ms(),
        expires_at: wanted.expires_at,
    };
    let row = store.create_key(&wanted.tenant, new).await?;
    tracing::info!(key_id = row.id, tenant = row.tenant.as_str(), scopes = ?row.scopes, "API key made");
    Ok((row, key))
}
