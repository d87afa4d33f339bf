//! Sandbox tokens.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bay_plugin_host::{Admission, SandboxFacts};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::Ids;
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::body;
use crate::edge::caller::Caller;
use crate::edge::openapi::refusals;
use crate::edge::wire::{CreateToken, CreatedToken, TokenRequest};
use crate::error::{ApiError, ApiResult, Code};
use crate::execution::admit::{facts, find_sandbox, not_expired, principal};
use crate::rules;
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
    let wanted = wanted(&sandbox, &body)?;
    not_expired(&sandbox)?;
    let wanted = match ask_rules(&app, &context, &sandbox, body).await? {
        Some(amended) => self::wanted(&sandbox, &amended)?,
        None => wanted,
    };
    let TokenRequest { capabilities, ttl } = wanted;
    let (token, expires_at) = app.mint_token(&context, &sandbox, capabilities.clone(), ttl).await?;
    let made = CreatedToken { token, expires_at: rfc3339(expires_at), capabilities };
    // A secret: kept by no cache, and never compressed.
    let no_store = [(http::header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, no_store, Json(made)).into_response())
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

/// The body as rules made it, where they changed it.
async fn ask_rules(
    app: &App,
    context: &OpContext,
    sandbox: &SandboxRow,
    body: Value,
) -> ApiResult<Option<Value>> {
    let profile = app.profiles.get(&sandbox.tenant, &sandbox.profile).ok_or_else(|| {
        ApiError::new(Code::Unavailable, format!("profile {} is no longer there", sandbox.profile))
            .with(json!({ "part": "profile" }))
    })?;
    let plugins = app.plugins.load_full();
    let chain = plugins.chain(&context.tenant, &profile.rules).ok_or_else(|| {
        ApiError::new(Code::PluginError, "a rules plugin of the profile is not loaded")
            .with(json!({ "plugin": profile.rules.join(", "), "reason": "missing" }))
    })?;
    let admission = Admission {
        principal: principal(context),
        sandbox: Some(SandboxFacts {
            id: sandbox.id.clone(),
            name: sandbox.name.clone(),
            profile: sandbox.profile.clone(),
            labels: sandbox.labels.clone().into_iter().collect(),
            session_seq: sandbox.session_seq,
        }),
        profile: facts(&profile),
        action: "sandbox.tokens.create".to_owned(),
        input: body,
        facts: Vec::new(),
    };
    let (body, amended) = rules::admit(&chain, admission).await?;
    Ok(amended.then_some(body))
}
