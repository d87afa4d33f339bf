//! CORS, for pages of the origins that the operator lists; without a list there is none.
//!
//! Credentials are headers that a page sets itself, so cookies are never allowed. A page should hold a sandbox token,
//! never a tenant's key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::app::App;

/// What pages may send.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// Which headers they may set.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, range, x-api-key, \
     x-request-id",
);
/// Which headers of an answer they may read.
const ANSWER_HEADERS: HeaderValue = HeaderValue::from_static(
    "content-disposition, content-range, etag, idempotency-replayed, retry-after, server-timing, x-ratelimit-limit, \
     x-ratelimit-remaining, x-ratelimit-reset, x-request-id",
);
/// How many seconds a browser may remember this.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Marks a request of a page whose origin is on the list: such a page may use Bay.
#[derive(Debug, Clone, Copy)]
pub struct ListedOrigin;

/// Answers preflights of listed origins, and lets their pages read other answers.
pub async fn cors(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let listed = &app.config.server.cors_origins;
    if listed.is_empty() {
        return next.run(request).await;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let origin = origin.filter(|origin| listed.iter().any(|one| one.as_bytes() == origin.as_bytes()));
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (&origin, preflight) {
        (Some(_), true) => permission(),
        (Some(_), false) => {
            request.extensions_mut().insert(ListedOrigin);
            next.run(request).await
        }
        (None, _) => next.run(request).await,
    };
    let headers = response.headers_mut();
    // Said also where the origin is not listed: a cache must not show one the other's answer.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS);
    }
    response
}

fn permission() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    (StatusCode::NO_CONTENT, headers).into_response()
}
