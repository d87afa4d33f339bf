//! Every route, in one table.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::handlers::{
    admin_keys, audit as audit_log, capabilities, capability, docs, executions, files, gc, history, lockers,
    metrics, ops, paths, processes, sandboxes, terminal, tokens, transfer, usage,
};
use super::middleware::{
    as_operator, audit, authenticate, check_origin, cors, gzip, identify, limit_rate, measure, recognise,
};
use super::openapi::{ApiDoc, Document};
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
        .routes(routes!(tokens::create))
        .routes(routes!(sandboxes::recover))
        .routes(routes!(executions::get))
        .routes(routes!(executions::output))
        .routes(routes!(executions::events))
        .routes(routes!(executions::cancel))
        .routes(routes!(history::list, history::clear))
        .routes(routes!(history::last))
        .routes(routes!(history::get, history::annotate))
        .routes(routes!(processes::list))
        .routes(routes!(processes::read, processes::kill))
        .routes(routes!(processes::stdin))
        .routes(routes!(files::read, files::write, files::delete))
        .routes(routes!(files::list))
        .routes(routes!(files::download))
        .routes(routes!(paths::edit))
        .routes(routes!(paths::make_dir))
        .routes(routes!(paths::rename))
        .routes(routes!(paths::stat))
        .routes(routes!(transfer::upload))
        .routes(routes!(transfer::archive))
        .routes(routes!(transfer::watch))
        .routes(routes!(terminal::ws))
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
        .routes(routes!(capabilities::list))
        .routes(routes!(admin_keys::create, admin_keys::list))
        .routes(routes!(admin_keys::get, admin_keys::revoke))
        .routes(routes!(metrics::metrics))
        .layer(from_fn_with_state(Arc::clone(&app), audit))
        .layer(from_fn_with_state(Arc::clone(&app), limit_rate))
        .layer(from_fn_with_state(Arc::clone(&app), authenticate));
    let open = OpenApiRouter::new()
        .routes(routes!(ops::health))
        .routes(routes!(ops::ready))
        .layer(from_fn_with_state(Arc::clone(&app), recognise));
    // Open, too, but with a key the document is made anew each time.
    let documents = OpenApiRouter::new()
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::page))
        .routes(routes!(docs::file))
        .layer(from_fn_with_state(Arc::clone(&app), limit_rate))
        .layer(from_fn_with_state(Arc::clone(&app), recognise));
    let (routes, generated) = with_key.merge(open).merge(documents).split_for_parts();
    let document = Arc::new(Document::new(&generated, &app.plugins.load()));
    guarded(routes.layer(Extension(document)), app)
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

/// What the admin socket serves: keys, to whoever may open it.
pub fn operator_router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/admin/keys", get(admin_keys::list).post(admin_keys::create))
        .route("/v1/admin/keys/{key}", get(admin_keys::get).delete(admin_keys::revoke))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), audit))
        .layer(from_fn(as_operator))
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
