//! Lockers, and their files without their sandboxes.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawQuery, State};
use axum::http::request::Parts;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::{Ids, labels, page};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::caller::{Caller, LockerFiles};
use crate::edge::idempotency::{Begun, IdempotencyKey};
use crate::edge::openapi::refusals;
use crate::edge::server::Peer;
use crate::edge::wire::{
    ChangeLockerRequest, CreateLockerRequest, DeleteFile, ListFiles, LockerObject, LockerPage, ReadFile,
    WriteFile,
};
use crate::edge::{body, input};
use crate::error::ApiResult;
use crate::locker;
use crate::locker::files::{FileCall, FileOperation};
use crate::store::LockerFilter;

refusals!(Create: ValidationError, DeniedByRule, Conflict, AlreadyExists, QuotaExceeded, PayloadTooLarge, UnsupportedMediaType, PluginError);
refusals!(List: ValidationError);
refusals!(Get: NotFound);
refusals!(Change: ValidationError, DeniedByRule, NotFound, AlreadyExists, PayloadTooLarge, UnsupportedMediaType, PluginError);
refusals!(Delete: DeniedByRule, NotFound, Conflict, PluginError);
refusals!(Files: ValidationError, InvalidPath, CapabilityNotSupported, IsADirectory, NotADirectory, Forbidden, DeniedByRule, PermissionDenied, NotFound, FileNotFound, Conflict, PayloadTooLarge, UnsupportedMediaType, RuntimeError, PluginError, SessionNotReady, Overloaded, Timeout, StorageFull);

/// `POST /v1/lockers`
#[utoipa::path(post, path = "/v1/lockers", tag = "lockers", params(IdempotencyKey), request_body = CreateLockerRequest, responses((status = 201, description = "the locker", body = LockerObject), Create))]
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
    let row = match guard.resumes() {
        Some(id) => locker::find(&app, &context, id).await?,
        None => locker::create(&app, &context, body, guard.claim()).await?,
    };
    guard.finish(&app, &context, StatusCode::CREATED, &LockerObject::from(row)).await
}

/// `GET /v1/lockers`: those that clients made, or with `managed` those that sandboxes made for themselves.
#[utoipa::path(get, path = "/v1/lockers", tag = "lockers", params(
    ("managed" = Option<bool>, Query, description = "those that sandboxes made for themselves, instead of those that clients made"),
    ("label" = Option<Vec<String>>, Query, description = "`key=value`; several: all of them"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "default 50"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
), responses((status = 200, description = "a page of lockers, newest first", body = LockerPage), List))]
pub async fn list(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    RawQuery(raw): RawQuery,
) -> ApiResult<Json<LockerPage>> {
    let pairs = input::query(raw.as_deref())?;
    let page = page(&pairs)?;
    let filter = LockerFilter { managed: input::flag(&pairs, "managed")?, labels: labels(&pairs)? };
    let listing = app.store.list_lockers(&context.tenant, filter, page).await?;
    Ok(Json(LockerPage {
        items: listing.items.into_iter().map(LockerObject::from).collect(),
        next_cursor: listing.next_cursor.map(|cursor| cursor.encode()),
    }))
}

/// `GET /v1/lockers/{id}`
#[utoipa::path(get, path = "/v1/lockers/{id}", tag = "lockers", params(("id" = String, Path, description = "`lkr_…`")), responses((status = 200, description = "the locker", body = LockerObject), Get))]
pub async fn get(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
) -> ApiResult<Json<LockerObject>> {
    let row = locker::find(&app, &context, &id).await?;
    app.sessions.usage().refresh(app.sessions.env(), &row);
    Ok(Json(row.into()))
}

/// `PATCH /v1/lockers/{id}`: a JSON merge patch of `name` and `labels`.
#[utoipa::path(patch, path = "/v1/lockers/{id}", tag = "lockers", params(("id" = String, Path, description = "`lkr_…`")), request_body = ChangeLockerRequest, responses((status = 200, description = "the locker", body = LockerObject), Change))]
pub async fn update(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<LockerObject>> {
    let body = body::json(&app, &headers, body, false).await?;
    Ok(Json(locker::update(&app, &context, &id, body).await?.into()))
}

/// `DELETE /v1/lockers/{id}`: with all that is in it. Again within a day: 204, too.
#[utoipa::path(delete, path = "/v1/lockers/{id}", tag = "lockers", params(("id" = String, Path, description = "`lkr_…`")), responses((status = 204, description = "gone"), Delete))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(id): Ids<String>,
) -> ApiResult<StatusCode> {
    locker::delete(&app, &context, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/lockers/{id}/files/read`
#[utoipa::path(post, path = "/v1/lockers/{id}/files/read", tag = "lockers", params(("id" = String, Path, description = "`lkr_…`")), request_body = ReadFile, responses((status = 200, description = "as `GET …/filesystem/files` of a sandbox", body = std::collections::BTreeMap<String, Value>), Files))]
pub async fn read_file(
    State(app): State<Arc<App>>,
    LockerFiles(context): LockerFiles,
    Ids(id): Ids<String>,
    ClientAddr(client): ClientAddr,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Value>> {
    call(&app, &context, id, client, FileOperation::Read, &headers, body).await
}

/// `POST /v1/lockers/{id}/files/write`
#[utoipa::path(post, path = "/v1/lockers/{id}/files/write", tag = "lockers", params(("id" = String, Path, description = "`lkr_…`")), request_body = WriteFile, responses((status = 200, description = "as `PUT …/filesystem/files` of a sandbox", body = std::collections::BTreeMap<String, Value>), Files))]
pub async fn write_file(
    State(app): State<Arc<App>>,
    LockerFiles(context): LockerFiles,
    Ids(id): Ids<String>,
    ClientAddr(client): ClientAddr,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Value>> {
    call(&app, &context, id, client, FileOperation::Write, &headers, body).await
}

/// `POST /v1/lockers/{id}/files/list`
#[utoipa::path(post, path = "/v1/lockers/{id}/files/list", tag = "lockers", params(("id" = String, Path, description = "`lkr_…`")), request_body = ListFiles, responses((status = 200, description = "as `GET …/filesystem/directories` of a sandbox", body = std::collections::BTreeMap<String, Value>), Files))]
pub async fn list_files(
    State(app): State<Arc<App>>,
    LockerFiles(context): LockerFiles,
    Ids(id): Ids<String>,
    ClientAddr(client): ClientAddr,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Value>> {
    call(&app, &context, id, client, FileOperation::List, &headers, body).await
}

/// `POST /v1/lockers/{id}/files/delete`
#[utoipa::path(post, path = "/v1/lockers/{id}/files/delete", tag = "lockers", params(("id" = String, Path, description = "`lkr_…`")), request_body = DeleteFile, responses((status = 200, description = "as `DELETE …/filesystem/files` of a sandbox", body = std::collections::BTreeMap<String, Value>), Files))]
pub async fn delete_file(
    State(app): State<Arc<App>>,
    LockerFiles(context): LockerFiles,
    Ids(id): Ids<String>,
    ClientAddr(client): ClientAddr,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Value>> {
    call(&app, &context, id, client, FileOperation::Delete, &headers, body).await
}

async fn call(
    app: &Arc<App>,
    context: &OpContext,
    locker_id: String,
    client: Option<IpAddr>,
    operation: FileOperation,
    headers: &HeaderMap,
    body: Body,
) -> ApiResult<Json<Value>> {
    let input = body::json(app, headers, body, true).await?;
    let call = FileCall { locker_id, operation, input, client };
    locker::files::call(app, context, call).await.map(Json)
}

/// Where a request comes from.
pub struct ClientAddr(Option<IpAddr>);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddr {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Peer>().map(|peer| peer.0.ip())))
    }
}
