//! Housekeeping on demand, scope `admin`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;

use crate::app::App;
use crate::background;
use crate::edge::body;
use crate::edge::caller::Admin;
use crate::edge::openapi::refusals;
use crate::edge::wire::{GcRun, GcStatus, gc_tasks};
use crate::error::{ApiError, ApiResult, Code};

refusals!(Run: ValidationError, PayloadTooLarge, UnsupportedMediaType, GcRunning);

/// `POST /v1/admin/gc/run`
#[utoipa::path(post, path = "/v1/admin/gc/run", tag = "admin",
    description = "Does housekeeping now instead of at its time, and says what it did. `tasks` names some of it; without, all is done.",
    request_body(content = Value, example = json!({ "tasks": ["expired_sandbox", "expired_idempotency_key"] })),
    responses((status = 200, description = "what was done", body = GcRun), Run))]
pub async fn run(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<GcRun>> {
    let tasks = gc_tasks(&body::json(&app, &headers, body, true).await?)?;
    let began = Instant::now();
    let reports = background::collect(&app, &tasks).await.ok_or_else(|| {
        ApiError::new(Code::GcRunning, "housekeeping is being done already; ask again when it is over")
    })?;
    Ok(Json(GcRun::of(reports, began.elapsed())))
}

/// `GET /v1/admin/gc/status`
#[utoipa::path(get, path = "/v1/admin/gc/status", tag = "admin",
    responses((status = 200, description = "how housekeeping stands", body = GcStatus)))]
pub async fn status(State(app): State<Arc<App>>, Admin(_): Admin) -> Json<GcStatus> {
    let running = app.house.try_lock().is_err();
    Json(GcStatus::of(&app.sessions.env().instance_id, *app.config.housekeeping.every, running))
}
