//! Counts requests, by the route's pattern.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, StatusCode};
use metrics::{SharedString, counter, gauge, histogram};

/// What no route matched.
const UNMATCHED: &str = "unmatched";

/// Counts one request and how long its answer took to begin.
pub async fn measure(request: Request, next: Next) -> Response {
    let method = method(request.method());
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route: SharedString = route.map_or(UNMATCHED.into(), |route| route.to_owned().into());
    let began = Instant::now();
    let in_flight = InFlight::one();
    let response = next.run(request).await;
    drop(in_flight);
    let labels = [("method", method.into()), ("route", route), ("status", status(response.status()))];
    counter!("bay_http_requests_total", &labels).increment(1);
    histogram!("bay_http_request_seconds", &labels).record(began.elapsed());
    response
}

/// A client that goes away drops the request where it is.
struct InFlight;

impl InFlight {
    fn one() -> Self {
        gauge!("bay_http_requests_in_flight").increment(1);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!("bay_http_requests_in_flight").decrement(1);
    }
}

/// A client can make methods up.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn status(status: StatusCode) -> SharedString {
    status.as_u16().to_string().into()
}
