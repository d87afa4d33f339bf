//! Lifecycle of sandboxes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{Ids, labels, page};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::caller::Caller;
use crate::edge::idempotency::{Begun, IdempotencyKey};
use crate::edge::openapi::refusals;
use crate::edge::wire::{CreateSandbox, Start, container_objects, sandbox_object};
use crate::edge::{body, input};
use crate::error::{ApiError, ApiResult};
use crate::execution::admit::find_sandbox;
use crate::sandbox::{self, Created};
use crate::store::{SandboxFilter, SandboxRow, SandboxStatus};
use crate::time::now_ms;

/// Longest `timeout` of a `GET …?wait=ready`, in seconds.
const MAX_WAIT: u64 = 300;
/// How often a sandbox that is waited for is looked at again, should nobody say that it changed.
const LOOK: Duration = Duration::from_millis(50);

refusals!(Create: ValidationError, NotFound, Conflict, DeniedByRule, PayloadTooLarge, UnsupportedMediaType, NetworkUnavailable);
refusals!(List: ValidationError);
refusals!(Get: ValidationError, NotFound);
refusals!(Change: ValidationError, NotFound, DeniedByRule);
refusals!(Update: ValidationError, NotFound, SandboxExpired, DeniedByRule, PayloadTooLarge, UnsupportedMediaType);
refusals!(Extend: ValidationError, NotFound, Conflict, SandboxExpired, SandboxTtlInfinite, DeniedByRule, PayloadTooLarge, UnsupportedMediaType);
refusals!(Living: ValidationError, NotFound, SandboxExpired, DeniedByRule);

/// `POST /v1/sandboxes`
#[utoipa::path(post, path = "/v1/sandboxes", tag = "sandboxes", params(IdempotencyKey), responses((status = 201, description = "the sandbox"), Create))]
pub async fn create(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    key: IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let body = body::json(&app, &headers, body, true).await?;
    let guard = match key.begin(&app, &context, &body).await? {
        Begun::Replay(answer) => return Ok(answer),
        Begun::Run(guard) => guard,
    };
    let Created { row, start } = match guard.resumes() {
        Some(id) => Created {
            row: find_sandbox(&app, &context, id).await?,
            start: CreateSandbox::parse(&body)?.start,
        },
        None => sandbox::create(&app, &context, body, guard.claim()).await?,
    };
    let row = match start {
        Start::Lazy => row,
        Start::Eager => {
            app.sessions.start_in_background(&row);
            row
        }
        Start::Wait => {
            // Whatever becomes of the start, the sandbox exists and the client must learn its id.
            let _started = app.sessions.ensure_running(&row, *app.config.sessions.start_wait).await;
            app.store.get_sandbox(&context.tenant, &row.id).await?
        }
    };
    guard.finish(&app, &context, StatusCode::CREATED, &object(&app, &row, Value::Null)).await
}

/// `GET /v1/sandboxes`
#[utoipa::path(get, path = "/v1/sandboxes", tag = "sandboxes", responses((status = 200, description = "a page of sandboxes"), List))]
pub async fn list(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    RawQuery(raw): RawQuery,
) -> ApiResult<Json<Value>> {
    let pairs = input::query(raw.as_deref())?;
    let page = page(&pairs)?;
    let mut filter = SandboxFilter {
        profile: input::find(&pairs, "profile").map(str::to_owned),
        ..SandboxFilter::default()
    };
    if let Some(text) = input::find(&pairs, "status") {
        let status = SandboxStatus::parse(text).ok_or_else(|| {
            ApiError::field("status", "must be idle, starting, ready, stopping, failed or expired")
        })?;
        filter.status = Some((status, now_ms()));
    }
    filter.labels = labels(&pairs)?;
    let listing = app.store.list_sandboxes(&context.tenant, filter, page).await?;
    let items: Vec<_> = listing.items.iter().map(|row| object(&app, row, Value::Null)).collect();
    let next = listing.next_cursor.map(|cursor| cursor.encode());
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

/// `GET /v1/sandboxes/{id}`
#[utoipa::path(get, path = "/v1/sandboxes/{id}", tag = "sandboxes", params(("id" = String, Path, description = "`sbx_…`")), responses((status = 200, description = "the sandbox"), Get))]
pub async fn get(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
    RawQuery(raw): RawQuery,
) -> ApiResult<Json<Value>> {
    let pairs = input::query(raw.as_deref())?;
    let mut row = find_sandbox(&app, &context, &id).await?;
    match input::find(&pairs, "wait") {
        None => {}
        Some("ready") => {
            row = settled(&app, &context, &id, wait_timeout(&pairs)?).await?;
        }
        Some(_) => return Err(ApiError::field("wait", "must be `ready`")),
    }
    if input::flag(&pairs, "probe")? {
        app.sessions.probe(&id).await;
    }
    let containers = container_objects(&app.sessions.view(&id));
    Ok(Json(object(&app, &row, containers)))
}

/// The sandbox as soon as it is ready or has failed, else as it is when `timeout` has passed. An idle one is waited
/// for too: an eager start may not have come to its task yet.
async fn settled(app: &App, context: &OpContext, id: &str, timeout: Duration) -> ApiResult<SandboxRow> {
    let until = Instant::now() + timeout;
    loop {
        let row = find_sandbox(app, context, id).await?;
        let left = until.saturating_duration_since(Instant::now());
        match row.status(now_ms()) {
            SandboxStatus::Ready | SandboxStatus::Failed | SandboxStatus::Expired => return Ok(row),
            SandboxStatus::Idle | SandboxStatus::Starting | SandboxStatus::Stopping if left.is_zero() => {
                return Ok(row);
            }
            SandboxStatus::Idle | SandboxStatus::Starting | SandboxStatus::Stopping => {
                app.sessions.changed(id, left.min(LOOK)).await;
            }
        }
    }
}

fn wait_timeout(pairs: &[(String, String)]) -> ApiResult<Duration> {
    match input::find(pairs, "timeout") {
        None => Ok(Duration::from_secs(30)),
        Some(text) => {
            text.parse().ok().filter(|s| *s <= MAX_WAIT).map(Duration::from_secs).ok_or_else(|| {
                ApiError::field("timeout", format!("must be a whole number from 0 to {MAX_WAIT}"))
            })
        }
    }
}

/// `PATCH /v1/sandboxes/{id}`
#[utoipa::path(patch, path = "/v1/sandboxes/{id}", tag = "sandboxes",
    description = "JSON merge patch of `name`, `labels`, `expires_at` (never past the profile's `max_ttl`) and, where the profile allows it, `idle_timeout` in seconds. Null takes a name or a label away, and gives the profile's idle time back.",
    params(("id" = String, Path, description = "`sbx_…`")),
    request_body(content = Value, example = json!({ "name": "report", "labels": { "team": "a", "old": null }, "expires_at": "2030-01-31T12:00:00.000Z" })),
    responses((status = 200, description = "the sandbox as it is now"), Update))]
pub async fn update(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Value>> {
    let body = body::json(&app, &headers, body, false).await?;
    let row = sandbox::update(&app, &context, &id, body).await?;
    Ok(Json(object(&app, &row, Value::Null)))
}

/// `POST /v1/sandboxes/{id}/extend_ttl`
#[utoipa::path(post, path = "/v1/sandboxes/{id}/extend_ttl", tag = "sandboxes",
    description = "Moves `expires_at` by `extend_by` seconds. Extensions at the same time all count.",
    params(("id" = String, Path, description = "`sbx_…`"), IdempotencyKey),
    request_body(content = Value, example = json!({ "extend_by": 3600 })),
    responses((status = 200, description = "the sandbox as it is now"), Extend))]
pub async fn extend_ttl(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
    key: IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let body = body::json(&app, &headers, body, false).await?;
    let guard = match key.begin(&app, &context, &body).await? {
        Begun::Replay(answer) => return Ok(answer),
        Begun::Run(guard) => guard,
    };
    let row = match guard.resumes() {
        Some(id) => find_sandbox(&app, &context, id).await?,
        None => sandbox::extend_ttl(&app, &context, &id, body, guard.claim()).await?,
    };
    guard.finish(&app, &context, StatusCode::OK, &object(&app, &row, Value::Null)).await
}

/// `POST /v1/sandboxes/{id}/keepalive`
#[utoipa::path(post, path = "/v1/sandboxes/{id}/keepalive", tag = "sandboxes",
    description = "Pushes `idle_expires_at`; starts nothing and leaves `expires_at` as it is.",
    params(("id" = String, Path, description = "`sbx_…`"), IdempotencyKey),
    responses((status = 200, description = "`{status: \"ok\", sandbox}`"), Living))]
pub async fn keepalive(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
    _any_repeat_is_as_good: IdempotencyKey,
) -> ApiResult<Json<Value>> {
    let row = sandbox::keepalive(&app, &context, &id).await?;
    Ok(Json(json!({ "status": "ok", "sandbox": object(&app, &row, Value::Null) })))
}

/// `POST /v1/sandboxes/{id}/stop`
#[utoipa::path(post, path = "/v1/sandboxes/{id}/stop", tag = "sandboxes",
    description = "Ends the session; the locker stays. Stopping what does not run is no error.",
    params(("id" = String, Path, description = "`sbx_…`"), IdempotencyKey),
    responses((status = 200, description = "`{status: \"stopped\", sandbox}`"), Change))]
pub async fn stop(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
    _any_repeat_is_as_good: IdempotencyKey,
) -> ApiResult<Json<Value>> {
    let row = sandbox::stop(&app, &context, &id).await?;
    Ok(Json(json!({ "status": "stopped", "sandbox": object(&app, &row, Value::Null) })))
}

/// `POST /v1/sandboxes/{id}/recover`
#[utoipa::path(post, path = "/v1/sandboxes/{id}/recover", tag = "sandboxes",
    description = "Forgets why a `failed` sandbox failed and starts it again, without waiting for that. One that has not failed is left as it is.",
    params(("id" = String, Path, description = "`sbx_…`"), IdempotencyKey),
    responses((status = 200, description = "`{status: \"ok\", sandbox}`"), Living))]
pub async fn recover(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
    _any_repeat_is_as_good: IdempotencyKey,
) -> ApiResult<Json<Value>> {
    let row = sandbox::recover(&app, &context, &id).await?;
    Ok(Json(json!({ "status": "ok", "sandbox": object(&app, &row, Value::Null) })))
}

/// `DELETE /v1/sandboxes/{id}`
#[utoipa::path(delete, path = "/v1/sandboxes/{id}", tag = "sandboxes", params(("id" = String, Path, description = "`sbx_…`")), responses((status = 204, description = "gone"), Change))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
) -> ApiResult<StatusCode> {
    sandbox::delete(&app, &context, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn object(app: &App, row: &SandboxRow, containers: Value) -> Value {
    let profile = app.profiles.get(&row.tenant, &row.profile);
    let of_profile =
        || profile.as_ref().and_then(|profile| i64::try_from(profile.idle_timeout.as_millis()).ok());
    let idle_timeout = row.idle_timeout_ms.or_else(of_profile);
    let idle = idle_timeout.and_then(|ms| app.sessions.last_used(&row.id)?.checked_add(ms));
    let fetching = profile.and_then(|profile| {
        profile.containers.iter().filter_map(|c| c.image.as_deref()).find_map(|i| app.driver.fetching(i))
    });
    sandbox_object(row, idle, fetching, containers)
}
