//! Every route, in one table.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::handlers::{capability, executions, files, metrics, ops, sandboxes};
use super::middleware::{authenticate, check_origin, cors, gzip, identify, measure, recognise};
use super::openapi::ApiDoc;
use crate::app::App;
use crate::error::{ApiError, Code};

/// The whole HTTP surface of Bay.
pub fn router(app: Arc<App>) -> Router {
    let with_key = OpenApiRouter::with_openapi(ApiDoc::openapi())
        .routes(routes!(sandboxes::create, sandboxes::list))
        .routes(routes!(sandboxes::get, sandboxes::delete))
        .routes(routes!(sandboxes::stop))
        .routes(routes!(executions::get))
        .routes(routes!(files::read, files::write, files::delete))
        .routes(routes!(files::list))
        .routes(routes!(files::download))
        .routes(routes!(capability::call))
        .routes(routes!(ops::profiles))
        .routes(routes!(metrics::metrics))
        .layer(from_fn_with_state(Arc::clone(&app), authenticate));
    let open = OpenApiRouter::new()
        .routes(routes!(ops::health))
        .routes(routes!(ops::ready))
        .layer(from_fn_with_state(Arc::clone(&app), recognise));
    // The document is not served yet.
    let (routes, _document) = with_key.merge(open).split_for_parts();
    guarded(routes, app)
}

/// What `server.ops_listen` serves, without a key.
pub fn ops(app: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/health", get(ops::health))
        .route("/ready", get(ops::ready_in_full))
        .route("/metrics", get(metrics::metrics_for_anyone));
    guarded(routes, app)
}

/// What every request passes on every listener, innermost first.
fn guarded(routes: Router<Arc<App>>, app: Arc<App>) -> Router {
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), check_origin))
        .layer(from_fn_with_state(Arc::clone(&app), cors))
        .layer(from_fn(identify))
        .layer(from_fn(measure))
        .layer(gzip())
        .with_state(app)
}

async fn unknown_path(request: Request) -> Response {
    ApiError::not_found("path", request.uri().path()).into_response()
}

async fn wrong_method() -> Response {
    ApiError::new(Code::MethodNotAllowed, "this path exists, but not for this method; see Allow")
        .into_response()
}
