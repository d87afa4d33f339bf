//! Every route, in one table.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::handlers::{
    audit as audit_log, capability, executions, files, gc, lockers, ops, sandboxes, usage,
};
use super::middleware::{audit, authenticate, check_origin, identify, limit_rate, recognise};
use super::openapi::ApiDoc;
use crate::app::App;
use crate::error::{ApiError, Code};

/// The whole HTTP surface of Bay.
pub fn router(app: Arc<App>) -> Router {
    let with_key = OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(sandboxes::create, sandboxes::list))
        .routes(routes!(sandboxes::get, sandboxes::update, sandboxes::delete))
        .routes(routes!(sandboxes::extend_ttl))
        .routes(routes!(sandboxes::keepalive))
        .routes(routes!(sandboxes::stop))
        .routes(routes!(sandboxes::recover))
        .routes(routes!(executions::get))
        .routes(routes!(files::read, files::write, files::delete))
        .routes(routes!(files::list))
        .routes(routes!(files::download))
        .routes(routes!(capability::call))
        .routes(routes!(lockers::create, lockers::list))
        .routes(routes!(lockers::get, lockers::update, lockers::delete))
        .routes(routes!(lockers::read_file))
        .routes(routes!(lockers::write_file))
        .routes(routes!(lockers::list_files))
        .routes(routes!(lockers::delete_file))
        .routes(routes!(audit_log::entries))
        .routes(routes!(audit_log::failures))
        .routes(routes!(ops::profiles))
        .routes(routes!(gc::run))
        .routes(routes!(gc::status))
        .routes(routes!(usage::get))
        .layer(from_fn_with_state(Arc::clone(&app), audit))
        .layer(from_fn_with_state(Arc::clone(&app), limit_rate))
        .layer(from_fn_with_state(Arc::clone(&app), authenticate));
    let open = OpenApiRouter::new()
        .routes(routes!(ops::health))
        .routes(routes!(ops::ready))
        .layer(from_fn_with_state(Arc::clone(&app), recognise));
    // The document is not served yet.
    let (routes, _document) = with_key.merge(open).split_for_parts();
    routes
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
