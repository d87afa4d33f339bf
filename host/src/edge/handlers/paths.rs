//! File routes that change or look at a path without moving its bytes: edit, make a directory, move, stat.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;

use super::files::{self, CAPABILITY};
use super::{Ids, capability};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::body;
use crate::edge::caller::Guest;
use crate::edge::openapi::refusals;
use crate::edge::wire::files::{Directory, EditFile, Edited, MadeDirectory, MovePath, Moved, PathStat};

refusals!(Path: ValidationError, InvalidPath, CapabilityNotSupported, IsADirectory, NotADirectory, DeniedByRule, PermissionDenied, NotFound, FileNotFound, Conflict, AlreadyExists, SandboxExpired, PayloadTooLarge, UnsupportedMediaType, RuntimeError, PluginError, SessionNotReady, Timeout, StorageFull);

/// Replaces text in a file
#[utoipa::path(patch, path = "/v1/sandboxes/{id}/filesystem/files", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`")), request_body = EditFile, responses((status = 200, description = "replaced", body = Edited), Path))]
pub async fn edit(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    by_body(app, context, id, headers, body, "edit_file").await
}

/// Makes a directory, and those above it
#[utoipa::path(post, path = "/v1/sandboxes/{id}/filesystem/directories", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`")), request_body = Directory, responses((status = 200, description = "it is there", body = MadeDirectory), Path))]
pub async fn make_dir(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    by_body(app, context, id, headers, body, "make_dir").await
}

/// Moves or renames a file or directory
#[utoipa::path(post, path = "/v1/sandboxes/{id}/filesystem/move", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`")), request_body = MovePath, responses((status = 200, description = "moved", body = Moved), Path))]
pub async fn rename(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    by_body(app, context, id, headers, body, "move").await
}

/// Size, kind, time and etag of a path
#[utoipa::path(get, path = "/v1/sandboxes/{id}/filesystem/stat", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`"), ("path" = String, Query, description = "relative to the workspace; a symbolic link at its end is not followed")), responses((status = 200, description = "what is there", body = PathStat), Path))]
pub async fn stat(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Response {
    files::by_query(app, context, id, raw, headers, "stat").await
}

async fn by_body(
    app: Arc<App>,
    context: OpContext,
    id: String,
    headers: HeaderMap,
    body: Body,
    operation: &str,
) -> Response {
    if let Err(error) = body::refuse_idempotency_key(&headers) {
        return error.into_response();
    }
    match body::json(&app, &headers, body, false).await {
        Ok(input) => capability::run(&app, &context, id, CAPABILITY, operation, input, headers).await,
        Err(error) => error.into_response(),
    }
}
