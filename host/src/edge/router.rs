//! Every route, in one table.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::handlers::{capability, executions, files, ops, sandboxes};
use super::middleware::{authenticate, check_origin, identify, recognise};
use crate::app::App;
use crate::error::{ApiError, Code};

/// The whole HTTP surface of Bay.
pub fn router(app: Arc<App>) -> Router {
    let with_key = Router::new()
        .route("/v1/sandboxes", post(sandboxes::create).get(sandboxes::list))
        .route("/v1/sandboxes/{id}", get(sandboxes::get).delete(sandboxes::delete))
        .route("/v1/sandboxes/{id}/stop", post(sandboxes::stop))
        .route("/v1/sandboxes/{id}/executions/{execution}", get(executions::get))
        .route(
            "/v1/sandboxes/{id}/filesystem/files",
            get(files::read).put(files::write).delete(files::delete),
        )
        .route("/v1/sandboxes/{id}/filesystem/directories", get(files::list))
        .route("/v1/sandboxes/{id}/filesystem/download", get(files::download))
        .route("/v1/sandboxes/{id}/{capability}/{operation}", post(capability::call))
        .route("/v1/profiles", get(ops::profiles))
        .layer(from_fn_with_state(Arc::clone(&app), authenticate));
    let open = Router::new()
        .route("/health", get(ops::health))
        .route("/ready", get(ops::ready))
        .layer(from_fn_with_state(Arc::clone(&app), recognise));
    with_key
        .merge(open)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), check_origin))
        .layer(from_fn(identify))
        .with_state(app)
}

async fn unknown_path(request: Request) -> Response {
    ApiError::not_found("path", request.uri().path()).into_response()
}

async fn wrong_method() -> Response {
    ApiError::new(Code::MethodNotAllowed, "this path exists, but not for this method; see Allow")
        .into_response()
}
