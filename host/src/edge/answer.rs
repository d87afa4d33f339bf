//! Turns results into responses. An error travels as an extension until the outermost layer, which knows the
//! request's id and method, writes its body.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, header};

use crate::error::{ApiError, Code};

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Whether a request may be sent again without harm. Of the methods that change something only DELETE gives the same
/// result twice, and what carries an `Idempotency-Key`.
pub fn is_repeatable(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE)
        || (*method == Method::POST && headers.contains_key("idempotency-key"))
}

/// Writes the body of an error that a handler or a layer left behind.
pub fn finish(response: Response, request_id: &str, repeatable: bool) -> Response {
    let Some(error) = response.extensions().get::<ApiError>().cloned() else {
        return response;
    };
    let mut written = (error.code.status(), Json(error.body(request_id, repeatable))).into_response();
    merge(written.headers_mut(), response.headers());
    if let Some(wait) = error.retry_after {
        written.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    if error.code == Code::Unauthorized {
        written.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    written
}

/// Keeps what layers said beside the error (`Allow`, `Server-Timing`), but not its empty body's description.
fn merge(into: &mut HeaderMap, from: &HeaderMap) {
    for (name, value) in from {
        if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
            into.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::Value;

    use super::*;

    async fn retryable(method: Method, keyed: bool, code: Code) -> Value {
        let mut headers = HeaderMap::new();
        if keyed {
            headers.insert("idempotency-key", HeaderValue::from_static("k"));
        }
        let repeatable = is_repeatable(&method, &headers);
        let answer = finish(ApiError::new(code, "gone").into_response(), "r", repeatable);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&body).unwrap()["error"]["retryable"].clone()
    }

    #[tokio::test]
    async fn a_post_is_repeatable_only_with_a_key() {
        for code in [Code::RuntimeError, Code::PluginError, Code::Timeout] {
            assert_eq!(retryable(Method::POST, false, code).await, false, "{code:?}");
            assert_eq!(retryable(Method::POST, true, code).await, true, "{code:?}");
            assert_eq!(retryable(Method::GET, false, code).await, true, "{code:?}");
            // No route reads a key on these.
            assert_eq!(retryable(Method::PATCH, true, code).await, false, "{code:?}");
        }
        assert_eq!(retryable(Method::POST, true, Code::ValidationError).await, false);
        assert_eq!(retryable(Method::POST, false, Code::Overloaded).await, true);
    }
}
