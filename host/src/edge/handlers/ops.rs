//! Health, readiness, profiles.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::{OpContext, Scope};
use crate::edge::caller::Caller;
use crate::edge::input;
use crate::edge::wire::schema::{ProfileList, Word};
use crate::error::ApiResult;
use crate::profile::Profile;

/// The process answers
#[utoipa::path(get, path = "/health", tag = "ops", responses((status = 200, description = "the process answers", body = Word)))]
pub async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Whether requests can be served; part by part with scope `ops`
#[utoipa::path(get, path = "/ready", tag = "ops", responses((status = 200, description = "ready", body = Word), (status = 503, description = "not ready", body = Word)))]
pub async fn ready(State(app): State<Arc<App>>, context: Option<Extension<OpContext>>) -> Response {
    let report = app.readiness().await;
    let may_know = context.is_some_and(|Extension(context)| context.has(Scope::Ops));
    answer(report.is_ready(), may_know.then(|| report.parts()))
}

/// `GET /ready` of the ops listener: part by part, without a key.
pub async fn ready_in_full(State(app): State<Arc<App>>) -> Response {
    let report = app.readiness().await;
    answer(report.is_ready(), Some(report.parts()))
}

fn answer(ready: bool, parts: Option<Value>) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if ready { "ready" } else { "not_ready" };
    let body = match parts {
        Some(parts) => json!({ "status": word, "parts": parts }),
        None => json!({ "status": word }),
    };
    (status, Json(body)).into_response()
}

/// The profiles that the tenant may use
#[utoipa::path(get, path = "/v1/profiles", tag = "profiles", params(("detail" = Option<bool>, Query)), responses((status = 200, description = "by id", body = ProfileList)))]
pub async fn profiles(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    RawQuery(raw): RawQuery,
) -> ApiResult<Json<Value>> {
    let detail = input::flag(&input::query(raw.as_deref())?, "detail")?;
    let items: Vec<_> = app.profiles.list(&context.tenant).iter().map(|p| object(p, detail)).collect();
    Ok(Json(json!({ "items": items })))
}

fn object(profile: &Profile, detail: bool) -> Value {
    let first = profile.containers.first();
    let mut object = json!({
        "id": profile.id,
        "image": first.and_then(|c| c.image.clone()),
        "resources": first.map(|c| json!({ "cpus": c.resources.cpus, "memory": c.resources.memory.bytes() })),
        "capabilities": profile.capabilities(),
        "idle_timeout": profile.idle_timeout.as_secs(),
        "max_ttl": profile.max_ttl.map(|d| d.as_secs()),
        "description": profile.description,
    });
    if let (true, Some(fields)) = (detail, object.as_object_mut()) {
        let containers = profile.containers.iter().map(|c| {
            json!({
                "name": c.name, "image": c.image, "capabilities": c.capabilities, "primary_for": c.primary_for,
                "network": c.network, "adapter": c.adapter,
            })
        });
        fields.insert("containers".to_owned(), containers.collect());
        fields.insert("features".to_owned(), json!([]));
    }
    object
}
