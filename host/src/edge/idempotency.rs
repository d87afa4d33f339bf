//! `Idempotency-Key`: a repeat of a POST that makes something is answered as the first was, and makes nothing.
//!
//! A handler takes [`IdempotencyKey`], and after reading the body:
//!
//! ```text
//!   match key.begin(&app, &context, &body).await? {
//!       Begun::Replay(response) => the first request's answer, byte for byte
//!       Begun::Run(guard) if guard.resumes() is an id => that resource exists: answer with it, make nothing
//!       Begun::Run(guard) => make it, with guard.claim() in the same transaction; then guard.finish(…)
//!   }
//! ```
//!
//! Two at once: the second waits in `begin` until the first one's guard is gone, however that ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use crate::app::App;
use crate::auth::{OpContext, Tenant};
use crate::error::{ApiError, ApiResult, Code};
use crate::store::{Claim, Claimed};
use crate::time::now_ms;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key.
const MAX_KEY: usize = 255;
/// Longest wait for the request that has the key: longer than an execution may take.
const PATIENCE: Duration = Duration::from_secs(3700);
/// Keys in use at once, of all tenants.
const MAX_KEYS: usize = 4096;
/// Requests that wait for one key; more than a few are a client in a loop.
const MAX_WAITING: usize = 64;

/// What a request says of itself for the record of its key; a bad header is refused.
pub struct IdempotencyKey {
    method: String,
    path: String,
    key: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let bad = |message: &str| ApiError::field("Idempotency-Key", message);
        let mut values = parts.headers.get_all(KEY).iter();
        let key = match (values.next(), values.next()) {
            (None, _) => None,
            (Some(value), None) => {
                let text = value.to_str().ok().filter(|t| t.bytes().all(|b| b.is_ascii_graphic()));
                let fits = text.filter(|t| (1..=MAX_KEY).contains(&t.len()));
                Some(fits.ok_or_else(|| bad("must be 1 to 255 visible ASCII characters"))?.to_owned())
            }
            (Some(_), Some(_)) => return Err(bad("stands there twice")),
        };
        Ok(Self { method: parts.method.as_str().to_owned(), path: parts.uri.path().to_owned(), key })
    }
}

impl utoipa::IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema =
            ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(MAX_KEY));
        vec![
            ParameterBuilder::new()
                .name("Idempotency-Key")
                .parameter_in(ParameterIn::Header)
                .required(utoipa::openapi::Required::False)
                .schema(Some(Schema::Object(schema.pattern(Some("^[!-~]+$")).build())))
                .description(Some(
                    "1 to 255 visible ASCII characters. A repeat with the same key and body is answered as the first \
                     was, with `Idempotency-Replayed: true`, and does nothing; with another body it is refused with \
                     409 `conflict`. Kept for an hour.",
                ))
                .build(),
        ]
    }
}

/// What a request with or without a key has to do.
pub enum Begun {
    /// Do it.
    Run(Guard),
    /// Nothing: it was done, and this is the answer.
    Replay(Response),
}

/// One request that runs; where it has a key, others with the same wait until this is gone.
pub struct Guard {
    claim: Option<Claim>,
    resumes: Option<String>,
    turn: Option<Turn>,
}

impl IdempotencyKey {
    /// Waits for whoever runs with the same key, and says what is left to do. 409 where the key had another body.
    pub async fn begin(self, app: &App, context: &OpContext, body: &Value) -> ApiResult<Begun> {
        let Some(key) = self.key else {
            return Ok(Begun::Run(Guard { claim: None, resumes: None, turn: None }));
        };
        let claim = Claim { method: self.method, path: self.path, key, hash: hash(body)?, at: now_ms() };
        let turn = app.turns.take(&context.tenant, &claim).await?;
        let resumes = match app.store.find_claim(&context.tenant, &claim).await? {
            Claimed::New => None,
            Claimed::Resume { resource_id } => Some(resource_id),
            Claimed::Replay { status, body } => return Ok(Begun::Replay(replay(status, body)?)),
            Claimed::Mismatch => return Err(crate::store::Conflict::KeyReused.into()),
        };
        Ok(Begun::Run(Guard { claim: Some(claim), resumes, turn: Some(turn) }))
    }
}

impl Guard {
    /// For the store method that makes the resource; none where the request has no key.
    pub fn claim(&self) -> Option<Claim> {
        self.claim.clone()
    }

    /// What an earlier request with this key made without ever being answered: nothing is to be made.
    pub fn resumes(&self) -> Option<&str> {
        self.resumes.as_deref()
    }

    /// Lets the next one with the same key go on, before this one has its answer: it resumes the resource. For work
    /// that a repeat attaches to rather than waits for.
    pub fn let_go(&mut self) {
        self.turn = None;
    }

    /// The answer, kept for repeats where it is a good one.
    pub async fn finish(
        self,
        app: &App,
        context: &OpContext,
        status: StatusCode,
        body: &impl Serialize,
    ) -> ApiResult<Response> {
        let body = serde_json::to_vec(body).map_err(ApiError::internal)?;
        if let Some(claim) = self.claim.as_ref().filter(|_| status.is_success()) {
            let kept = app.store.answer_claim(&context.tenant, claim, status.as_u16(), body.clone()).await;
            if let Err(error) = kept {
                // It is done, and the client is to know. A repeat resumes it.
                tracing::warn!(%error, "could not keep an answer for repeats of its request");
            }
        }
        Ok(json(status, body))
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

fn replay(status: u16, body: Vec<u8>) -> ApiResult<Response> {
    let mut response = json(StatusCode::from_u16(status).map_err(ApiError::internal)?, body);
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// SHA-256 of canonical JSON: members sorted, no white space.
fn hash(body: &Value) -> ApiResult<[u8; 32]> {
    // `serde_json` keeps members sorted; a test notices should some crate's features ever change that.
    Ok(Sha256::digest(serde_json::to_vec(body).map_err(ApiError::internal)?).into())
}

/// Whose turn it is, by tenant and key. In this process alone: one Bay has the store.
#[derive(Debug, Default)]
pub struct Turns {
    held: Mutex<HashMap<Name, Arc<tokio::sync::Mutex<()>>>>,
}

type Name = (Tenant, String, String, String);

/// A place in the line of one key, and then the turn itself.
struct Turn {
    turns: Arc<Turns>,
    name: Name,
    lock: Arc<tokio::sync::Mutex<()>>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    async fn take(self: &Arc<Self>, tenant: &Tenant, claim: &Claim) -> ApiResult<Turn> {
        let name = (tenant.clone(), claim.method.clone(), claim.path.clone(), claim.key.clone());
        let busy = || {
            ApiError::new(Code::Overloaded, "too many requests with an Idempotency-Key wait for each other")
                .after(Duration::from_secs(1))
        };
        let lock = {
            let mut held = self.held();
            if held.len() >= MAX_KEYS && !held.contains_key(&name) {
                return Err(busy());
            }
            let lock = held.entry(name.clone()).or_default();
            // The map's own and the holder's two, and one or two for each that waits.
            if Arc::strong_count(lock) > 3 + 2 * MAX_WAITING {
                return Err(busy());
            }
            Arc::clone(lock)
        };
        let mut turn = Turn { turns: Arc::clone(self), name, lock, turn: None };
        let mine = tokio::time::timeout(PATIENCE, Arc::clone(&turn.lock).lock_owned()).await;
        turn.turn = Some(mine.map_err(|_| busy())?);
        Ok(turn)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Name, Arc<tokio::sync::Mutex<()>>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut held = self.turns.held();
        self.turn = None;
        // The map's and this one's: nobody else has it or waits for it.
        if Arc::strong_count(&self.lock) == 2 {
            held.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(key: &str) -> Claim {
        Claim { method: "POST".into(), path: "/v1/x".into(), key: key.into(), hash: [0; 32], at: 0 }
    }

    #[test]
    fn a_body_is_the_same_in_any_order_and_spelling() {
        let one: Value = serde_json::from_str(r#"{"b": {"y": 1, "x": [1, 2]}, "a": "\u00fc"}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"a":"ü","b":{"x":[1,2],"y":1}}"#).unwrap();
        assert_eq!(hash(&one).unwrap(), hash(&two).unwrap());
        assert_ne!(hash(&one).unwrap(), hash(&json!({ "a": "ü", "b": { "x": [2, 1], "y": 1 } })).unwrap());
    }

    #[tokio::test]
    async fn one_key_is_one_turn_at_a_time_and_leaves_nothing() {
        let (turns, acme) = (Arc::new(Turns::default()), Tenant::new("acme").unwrap());
        let again = claim("k");
        let first = turns.take(&acme, &again).await.unwrap();
        let other = turns.take(&Tenant::new("other").unwrap(), &claim("k")).await.unwrap();
        let mut second = Box::pin(turns.take(&acme, &again));
        assert!(futures::FutureExt::now_or_never(&mut second).is_none());
        // One that waits and gives up is as if it had never been there.
        let mut third = Box::pin(turns.take(&acme, &again));
        assert!(futures::FutureExt::now_or_never(&mut third).is_none());
        drop(third);
        drop(first);
        drop(second.await.unwrap());
        drop(other);
        assert!(turns.held().is_empty());
    }

    #[tokio::test]
    async fn the_line_for_one_key_has_an_end() {
        let (turns, acme) = (Arc::new(Turns::default()), Tenant::new("acme").unwrap());
        let again = claim("k");
        let _first = turns.take(&acme, &again).await.unwrap();
        let mut waiting = Vec::new();
        let refused = (0..4 * MAX_WAITING).find_map(|_| {
            let mut next = Box::pin(turns.take(&acme, &again));
            let polled = futures::FutureExt::now_or_never(&mut next);
            waiting.push(next);
            polled
        });
        assert!(refused.is_some_and(|r| r.is_err()) && waiting.len() >= MAX_WAITING, "{}", waiting.len());
    }
}
