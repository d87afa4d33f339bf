//! Sandbox tokens.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::Ids;
use crate::app::App;
use crate::edge::body;
use crate::edge::caller::Caller;
use crate::edge::openapi::refusals;
use crate::edge::wire::{CreateToken, CreatedToken, TokenRequest};
use crate::error::{ApiError, ApiResult, Code};
use crate::execution::admit::{find_sandbox, not_expired};
use crate::execution::known;
use crate::store::SandboxRow;
use crate::time::rfc3339;

refusals!(Create: ValidationError, CapabilityNotSupported, NotFound, DeniedByRule, SandboxExpired, PayloadTooLarge, UnsupportedMediaType, PluginError);

/// `POST /v1/sandboxes/{id}/tokens`: a token bound to this sandbox and some of its capabilities, for a browser.
///
/// It ends after `ttl` seconds, with the sandbox, and with the key that made it. It can make no tokens, and on every
/// other sandbox its holder gets 404. Nothing runs or starts. An `Idempotency-Key` changes nothing: a token is not
/// stored, so a repeat makes another one, and the first goes on until its time.
#[utoipa::path(post, path = "/v1/sandboxes/{id}/tokens", tag = "sandboxes", params(("id" = String, Path, description = "`sbx_…`")), request_body = CreateToken, responses((status = 201, description = "the token, shown once", body = CreatedToken), Create))]
pub async fn create(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let body = body::json(&app, &headers, body, false).await?;
    let sandbox = find_sandbox(&app, &context, &id).await?;
    wanted(&sandbox, &body)?;
    not_expired(&sandbox)?;
    let body = known::rules(&app, &context, &sandbox, "sandbox.tokens.create", body).await?;
    let TokenRequest { capabilities, ttl } = wanted(&sandbox, &body)?;
    let (token, expires_at) = app.mint_token(&context, &sandbox, capabilities.clone(), ttl).await?;
    let made = CreatedToken { token, expires_at: rfc3339(expires_at), capabilities };
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok((StatusCode::CREATED, [no_store], Json(made)).into_response())
}

/// A body that fits, with capabilities that the sandbox has.
fn wanted(sandbox: &SandboxRow, body: &Value) -> ApiResult<TokenRequest> {
    let wanted = CreateToken::parse(body)?;
    match wanted.capabilities.iter().find(|c| !sandbox.capabilities.contains(c)) {
        None => Ok(wanted),
        Some(missing) => {
            Err(ApiError::new(Code::CapabilityNotSupported, "the sandbox does not have this capability")
                .with(json!({ "capability": missing, "available": sandbox.capabilities })))
        }
    }
}
