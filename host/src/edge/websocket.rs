//! The WebSocket handshake (RFC 6455, section 4.2) on Bay's side: checked in full before anything starts, then carried
//! to the runtime.

use axum::extract::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use hyper::upgrade::OnUpgrade;

use crate::error::{ApiError, ApiResult};

/// How a browser hands over its token: the one header that its WebSocket lets it set. Never passed on, never echoed.
pub const BEARER: &str = "bearer.";
/// Most subprotocols that are looked at.
const MAX_PROTOCOLS: usize = 16;

/// A handshake that may be accepted.
pub struct Handshake {
    /// The client's connection once it is answered.
    pub connection: OnUpgrade,
    /// `Sec-WebSocket-Key`.
    pub key: HeaderValue,
    /// What it offers, without a credential.
    pub protocols: Vec<String>,
}

impl Handshake {
    /// Refuses whatever does not ask for a WebSocket in every respect.
    pub fn of(request: &mut Request) -> ApiResult<Self> {
        if request.version() != Version::HTTP_11 {
            return Err(ApiError::field("version", "a WebSocket begins with HTTP/1.1"));
        }
        let headers = request.headers();
        let lists = |name, word: &str| tokens(headers, &name).any(|token| token.eq_ignore_ascii_case(word));
        if !lists(header::CONNECTION, "upgrade") || !lists(header::UPGRADE, "websocket") {
            return Err(ApiError::field(
                "Upgrade",
                "this is a WebSocket: send `Connection: Upgrade` and `Upgrade: websocket`",
            ));
        }
        if only(headers, &header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(ApiError::field("Sec-WebSocket-Version", "must be 13"));
        }
        let has_length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
        if has_length || headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(ApiError::field("Content-Length", "a WebSocket's handshake has no body"));
        }
        let key = only(headers, &header::SEC_WEBSOCKET_KEY)
            .filter(|key| STANDARD.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == 16))
            .cloned()
            .ok_or_else(|| ApiError::field("Sec-WebSocket-Key", "must be 16 bytes in base64"))?;
        let protocols = tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL)
            .take(MAX_PROTOCOLS)
            .filter(|token| !token.is_empty() && !token.starts_with(BEARER))
            .map(str::to_owned)
            .collect();
        let connection = request.extensions_mut().remove::<OnUpgrade>();
        let connection =
            connection.ok_or_else(|| ApiError::internal("a connection that cannot be upgraded"))?;
        Ok(Self { connection, key, protocols })
    }
}

/// The value of a header that is there exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// The tokens of a comma-separated header, which may be there more than once.
pub fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> + use<'h> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn refused(change: (&'static str, &'static str)) -> String {
        let mut request = Request::new(Body::empty());
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            change,
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Handshake::of(&mut request).err().unwrap().message
    }

    #[test]
    fn only_a_whole_handshake_is_one() {
        for (name, value, said) in [
            ("connection", "keep-alive", "Upgrade"),
            ("upgrade", "h2c", "Upgrade"),
            ("sec-websocket-version", "8", "Version"),
            ("sec-websocket-key", "c2hvcnQ=", "Key"),
            ("sec-websocket-key", "***", "Key"),
            ("content-length", "5", "no body"),
            ("transfer-encoding", "chunked", "no body"),
        ] {
            assert!(refused((name, value)).contains(said), "{name}: {value}");
        }
        // Nothing is wrong with it; that this connection cannot be taken over is Bay's fault.
        assert!(!refused(("x", "y")).contains("Sec-"));
    }
}
