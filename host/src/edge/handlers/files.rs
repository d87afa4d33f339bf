//! The file routes: each is one operation of the `filesystem` capability in the dress of its own method.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde_json::{Value, json};

use super::{Ids, capability};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::caller::Guest;
use crate::edge::openapi::refusals;
use crate::edge::{body, input};
use crate::error::ApiResult;
use crate::execution::admit::find_sandbox;

pub(super) const CAPABILITY: &str = "filesystem";

refusals!(File: ValidationError, InvalidPath, CapabilityNotSupported, IsADirectory, NotADirectory, DeniedByRule, PermissionDenied, NotFound, FileNotFound, Conflict, SandboxExpired, PayloadTooLarge, RangeNotSatisfiable, RuntimeError, PluginError, SessionNotReady, Timeout, StorageFull);

/// `GET …/filesystem/files`
#[utoipa::path(get, path = "/v1/sandboxes/{id}/filesystem/files", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`")), responses((status = 200, description = "done"), File))]
pub async fn read(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Response {
    by_query(app, context, id, raw, headers, "read_file").await
}

/// `DELETE …/filesystem/files`
#[utoipa::path(delete, path = "/v1/sandboxes/{id}/filesystem/files", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`")), responses((status = 200, description = "done"), File))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Response {
    by_query(app, context, id, raw, headers, "delete_file").await
}

/// `GET …/filesystem/directories`
#[utoipa::path(get, path = "/v1/sandboxes/{id}/filesystem/directories", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`")), responses((status = 200, description = "done"), File))]
pub async fn list(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Response {
    by_query(app, context, id, raw, headers, "list_dir").await
}

/// `GET …/filesystem/download`
#[utoipa::path(get, path = "/v1/sandboxes/{id}/filesystem/download", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`")), responses((status = 200, description = "done"), File))]
pub async fn download(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Response {
    by_query(app, context, id, raw, headers, "download").await
}

/// `PUT …/filesystem/files`
#[utoipa::path(put, path = "/v1/sandboxes/{id}/filesystem/files", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`")), responses((status = 200, description = "done"), File))]
pub async fn write(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match body::json(&app, &headers, body, false).await {
        Ok(input) => capability::run(&app, &context, id, CAPABILITY, "write_file", input, headers).await,
        Err(error) => error.into_response(),
    }
}

pub(super) async fn by_query(
    app: Arc<App>,
    context: OpContext,
    id: String,
    raw: Option<String>,
    headers: HeaderMap,
    operation: &str,
) -> Response {
    match typed_query(&app, &context, &id, raw.as_deref(), operation).await {
        Ok(input) => capability::run(&app, &context, id, CAPABILITY, operation, input, headers).await,
        Err(error) => error.into_response(),
    }
}

/// The input of one of the file operations.
pub(super) async fn typed_query(
    app: &App,
    context: &OpContext,
    id: &str,
    raw: Option<&str>,
    operation: &str,
) -> ApiResult<Value> {
    typed_input(app, context, id, raw, CAPABILITY, operation).await
}

/// Query strings have no types; the operation's schema has.
pub(super) async fn typed_input(
    app: &App,
    context: &OpContext,
    id: &str,
    raw: Option<&str>,
    capability: &str,
    operation: &str,
) -> ApiResult<Value> {
    let pairs = input::query(raw)?;
    let sandbox = find_sandbox(app, context, id).await?;
    let plugins = app.plugins.load();
    let profile = app.profiles.get(&sandbox.tenant, &sandbox.profile);
    let schema = profile.iter().flat_map(|p| &p.containers).find_map(|c| {
        let op = plugins.adapter(&c.adapter)?.catalog.get(capability, operation)?;
        Some(op.spec.input_schema.clone())
    });
    Ok(input::typed(pairs, &schema.unwrap_or_else(|| json!({}))))
}
