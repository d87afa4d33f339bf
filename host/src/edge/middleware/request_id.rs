//! Gives every request Bay's own id, finishes its errors with it, and logs one line when it is done.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use tracing::Instrument;

use crate::edge::answer;
use crate::id;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id of a client that Bay keeps beside its own.
const MAX_CLIENT_ID: usize = 128;

/// The two names of a request.
#[derive(Debug, Clone)]
pub struct RequestIds {
    /// Bay's own.
    pub request_id: String,
    /// The client's, where it sent one that is 1-128 visible ASCII characters.
    pub client_request_id: Option<String>,
}

/// The outermost layer.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let request_id = id::request_id();
    let client_request_id = client_id(&request);
    // The route's pattern, never the path itself: what a client wrote is not for the log.
    let route = request.extensions().get::<MatchedPath>().map(|m| m.as_str().to_owned());
    let method = request.method().clone();
    let repeatable = answer::is_repeatable(&method, request.headers());
    let span = tracing::info_span!(
        "request", %request_id, client_request_id = client_request_id.as_deref(), %method, route = route.as_deref(),
    );
    request.extensions_mut().insert(RequestIds { request_id: request_id.clone(), client_request_id });
    let began = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let mut response = answer::finish(response, &request_id, repeatable);
    span.in_scope(|| {
        let ms = began.elapsed().as_secs_f64() * 1e3;
        tracing::debug!(status = response.status().as_u16(), ms, "done");
    });
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn client_id(request: &Request) -> Option<String> {
    let text = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    let visible = text.bytes().all(|b| b.is_ascii_graphic());
    (visible && (1..=MAX_CLIENT_ID).contains(&text.len())).then(|| text.to_owned())
}
