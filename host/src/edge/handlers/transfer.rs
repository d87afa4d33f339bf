//! File routes whose bodies stream: upload, archive, watch. None of them is ever whole in Bay's memory.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use super::files::{self, CAPABILITY};
use super::{Ids, capability};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::body;
use crate::edge::caller::Guest;
use crate::edge::form::Form;
use crate::edge::incoming::{Broken, Incoming, Pieces};
use crate::edge::openapi::refusals;
use crate::edge::wire::files::{Unpacked, UploadForm, Uploaded};
use crate::error::{ApiError, ApiResult, Code};
use crate::locker;
use crate::runtime::CallerRequest;

refusals!(Transfer: ValidationError, InvalidPath, CapabilityNotSupported, IsADirectory, NotADirectory, DeniedByRule, PermissionDenied, NotFound, FileNotFound, Conflict, AlreadyExists, SandboxExpired, PayloadTooLarge, UnsupportedMediaType, QuotaExceeded, Busy, RuntimeError, PluginError, SessionNotReady, Timeout, StorageFull);
refusals!(Watch: ValidationError, InvalidPath, CapabilityNotSupported, NotADirectory, DeniedByRule, PermissionDenied, NotFound, FileNotFound, SandboxExpired, QuotaExceeded, Busy, RuntimeError, PluginError, SessionNotReady, Timeout);

/// Fields of an upload, besides its bytes.
const FIELDS: &[&str] = &["path", "mode", "if_match"];
/// What an archive may be said to be.
const ARCHIVES: [&str; 7] = [
    "",
    "application/x-tar",
    "application/tar",
    "application/octet-stream",
    "application/gzip",
    "application/x-gzip",
    "application/x-gtar-compressed",
];

/// Uploads a file of any size, whole or not at all
///
/// `path`, `mode` and `if_match` stand before `file` in the form, or in the query.
#[utoipa::path(post, path = "/v1/sandboxes/{id}/filesystem/upload", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`"), ("path" = Option<String>, Query, description = "instead of the form's"), ("mode" = Option<u32>, Query, description = "instead of the form's"), ("if_match" = Option<String>, Query, description = "instead of the form's")), request_body(content = UploadForm, content_type = "multipart/form-data"), responses((status = 200, description = "written", body = Uploaded), Transfer))]
pub async fn upload(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let read = async {
        body::refuse_idempotency_key(&headers)?;
        let body = Incoming::new(&headers, body, app.config.server.max_upload.bytes())?;
        let query = files::typed_query(&app, &context, &id, raw.as_deref(), "upload").await?;
        let (fields, file) = Form::new(&headers, body)?.fields(FIELDS).await?;
        Ok((merged(query, fields)?, file))
    };
    match read.await {
        Ok((input, file)) => send(&app, &context, id, "upload", input, length_of(&headers), file).await,
        Err(error) => ApiError::into_response(error),
    }
}

/// Unpacks a tar or tar.gz, whole or not at all
#[utoipa::path(post, path = "/v1/sandboxes/{id}/filesystem/archive", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`"), ("path" = Option<String>, Query, description = "the directory to unpack into; default: the workspace itself")), request_body(content = Vec<u8>, content_type = "application/x-tar", description = "or `application/gzip`"), responses((status = 200, description = "unpacked", body = Unpacked), Transfer))]
pub async fn archive(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let read = async {
        body::refuse_idempotency_key(&headers)?;
        let body = Incoming::new(&headers, body, app.config.server.max_upload.bytes())?;
        let input = files::typed_query(&app, &context, &id, raw.as_deref(), "archive").await?;
        if !is_archive(&headers) {
            return Err(ApiError::new(
                Code::UnsupportedMediaType,
                "an archive comes as application/x-tar, application/gzip or application/octet-stream",
            ));
        }
        Ok((input, body))
    };
    match read.await {
        Ok((input, body)) => send(&app, &context, id, "archive", input, headers, body).await,
        Err(error) => error.into_response(),
    }
}

/// Changes beneath a path, as server-sent events
///
/// `created`, `modified`, `removed` and `moved` carry `{path, type, from?}`; after `overflow` anything may have
/// happened: list again. A comment each 15 s shows that the stream lives.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/filesystem/watch", tag = "filesystem", params(("id" = String, Path, description = "`sbx_…`"), ("path" = Option<String>, Query, description = "default: the workspace itself"), ("recursive" = Option<bool>, Query, description = "what is beneath, too")), responses((status = 200, description = "events until the client goes, or what is watched is gone", body = String, content_type = "text/event-stream"), Watch))]
pub async fn watch(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Response {
    let mut response = files::by_query(app, context, id, raw, headers, "watch").await;
    // Neither kept nor held up on its way.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Passes a body on. Where the client broke it, that is the answer, whatever the runtime made of it.
async fn send(
    app: &Arc<App>,
    context: &OpContext,
    id: String,
    operation: &str,
    input: Value,
    headers: HeaderMap,
    pieces: impl Pieces,
) -> Response {
    let (broken, is_announced) = (Broken::default(), headers.contains_key(header::CONTENT_LENGTH));
    let caller = CallerRequest { headers, body: Some(broken.pass_on(pieces)), ..CallerRequest::default() };
    let response = capability::run_with(app, context, id.clone(), CAPABILITY, operation, input, caller).await;
    if !is_announced {
        // How much it was is known only from what is there now.
        locker::measure_limited(app, context, &id).await;
    }
    match broken.reason() {
        Some(error) => error.into_response(),
        None => response,
    }
}

/// Of a form's head only its length is about the file: by it the locker's room is known. It is not sent on.
fn length_of(headers: &HeaderMap) -> HeaderMap {
    let length = headers.get(header::CONTENT_LENGTH).cloned();
    length.map(|length| (header::CONTENT_LENGTH, length)).into_iter().collect()
}

/// The form's fields over the query's.
fn merged(mut query: Value, fields: Vec<(&'static str, String)>) -> ApiResult<Value> {
    for (name, text) in fields {
        query[name] =
            match name {
                "mode" => text.trim().parse::<u32>().map(Value::from).map_err(|_| {
                    ApiError::field("mode", "must be a whole number: permission bits in decimal")
                })?,
                _ => Value::String(text),
            };
    }
    Ok(query)
}

fn is_archive(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).map_or(Ok(""), |value| value.to_str());
    let essence = given.ok().and_then(|text| text.split(';').next()).map(|e| e.trim().to_ascii_lowercase());
    essence.is_some_and(|essence| ARCHIVES.contains(&essence.as_str()))
}
