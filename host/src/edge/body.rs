//! Request bodies: bounded in size and time, JSON or a clear refusal.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use crate::app::App;
use crate::error::{ApiError, ApiResult, Code};

/// Most values in one body: each becomes hundreds of bytes in memory, however short its text.
const MAX_VALUES: usize = 100_000;
/// How long a client may take to send one; a slow sender must not hold a handler for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads a JSON body. An empty one is `{}` where `optional`.
pub async fn json(app: &App, headers: &HeaderMap, body: Body, optional: bool) -> ApiResult<Value> {
    let max = usize::try_from(app.config.server.max_body.bytes()).unwrap_or(usize::MAX);
    let bytes = read(body, max).await?;
    if bytes.is_empty() && optional {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    if !is_json(headers) {
        return Err(ApiError::new(
            Code::UnsupportedMediaType,
            "send JSON with Content-Type: application/json",
        ));
    }
    if values(&bytes) > MAX_VALUES {
        let message = format!("the body has more than {MAX_VALUES} values");
        return Err(ApiError::new(Code::ValidationError, message));
    }
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::new(Code::ValidationError, format!("the body is not JSON: {e}")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(ApiError::new(Code::ValidationError, "the body must be a JSON object"))
    }
}

/// At least as many values as a JSON text has: what separates them, outside of strings. Whether it is JSON shows later.
fn values(text: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' | b':' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

/// A client that sends a key counts on a repeat doing nothing twice. A route that keeps no record cannot promise that,
/// and ignoring the header would break the promise silently.
pub fn refuse_idempotency_key(headers: &HeaderMap) -> ApiResult<()> {
    if headers.contains_key("idempotency-key") {
        return Err(ApiError::field(
            "Idempotency-Key",
            "this route keeps no record that a repeat could find; leave it out",
        ));
    }
    Ok(())
}

async fn read(body: Body, max: usize) -> ApiResult<Bytes> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max).collect())
        .await
        .map_err(|_| ApiError::new(Code::ValidationError, "the body did not arrive within 60 s"))?;
    match collected {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(e) if is_length_limit(e.as_ref()) => {
            Err(ApiError::new(Code::PayloadTooLarge, format!("the body is over {max} bytes")))
        }
        Err(_) => Err(ApiError::new(Code::ValidationError, "the body broke off")),
    }
}

fn is_length_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(e) = next {
        if e.is::<LengthLimitError>() {
            return true;
        }
        next = e.source();
    }
    false
}

/// `application/json` or `application/*+json`, with or without parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings() {
        assert_eq!(values(br#"{"a": [1, 2, {"b,[{": "\",,,\\"}]}"#), 7);
        assert_eq!(values(br#""[,[,[,""#), 0);
        assert_eq!(values(b"[0,0,0]"), 3);
    }
}
