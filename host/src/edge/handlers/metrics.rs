//! What Bay counts, for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;

use crate::app::App;
use crate::edge::caller::Ops;
use crate::edge::openapi::refusals;
use crate::error::{ApiError, ApiResult, Code};
use crate::telemetry;

/// The text format of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

refusals!(Metrics: Forbidden, Unavailable);

/// `GET /metrics`
#[utoipa::path(get, path = "/metrics", tag = "ops", responses((status = 200, description = "counters, gauges and histograms in the text format of Prometheus; also on `server.ops_listen`, without a key", body = String, content_type = "text/plain"), Metrics))]
pub async fn metrics(State(app): State<Arc<App>>, _: Ops) -> ApiResult<Response> {
    text(&app)
}

/// `GET /metrics` of the ops listener, without a key.
pub async fn metrics_for_anyone(State(app): State<Arc<App>>) -> ApiResult<Response> {
    text(&app)
}

fn text(app: &App) -> ApiResult<Response> {
    let text = telemetry::metrics::render(app)
        .ok_or_else(|| ApiError::new(Code::Unavailable, "this Bay counts nothing"))?;
    Ok(([(header::CONTENT_TYPE, TEXT)], text).into_response())
}
