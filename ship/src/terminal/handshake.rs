//! The WebSocket handshake (RFC 6455, section 4.2), server side. Without I/O.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Version};
use sha1::{Digest, Sha1};

use super::Mode;
use crate::agent::error::Failure;

/// The subprotocol.
pub(crate) const PROTOCOL: &str = "bay.terminal.v1";
/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A handshake that may be accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The value of `Sec-WebSocket-Accept`.
    pub(crate) accept: String,
    /// Whether the client offered [`PROTOCOL`].
    pub(crate) mode: Mode,
}

impl Offer {
    /// Checks a request's head; refuses whatever does not ask for a WebSocket in every respect.
    pub(crate) fn of(method: &Method, version: Version, headers: &HeaderMap) -> Result<Self, Failure> {
        let wanted = |name: &HeaderName, why: &str| Failure::field(name.as_str(), why);
        if *method != Method::GET || version != Version::HTTP_11 {
            return Err(Failure::field("method", "a WebSocket begins with GET and HTTP/1.1"));
        }
        if !lists(headers, &header::CONNECTION, |token| token.eq_ignore_ascii_case("upgrade")) {
            return Err(wanted(&header::CONNECTION, "must list `Upgrade`"));
        }
        if !lists(headers, &header::UPGRADE, |token| token.eq_ignore_ascii_case("websocket")) {
            return Err(wanted(&header::UPGRADE, "must be `websocket`"));
        }
        if only(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
            return Err(wanted(&header::SEC_WEBSOCKET_VERSION, "must be 13"));
        }
        let has_body = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
        if has_body || headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(wanted(&header::CONTENT_LENGTH, "a WebSocket's handshake has no body"));
        }
        let key = only(headers, &header::SEC_WEBSOCKET_KEY)
            .filter(|key| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16))
            .ok_or_else(|| wanted(&header::SEC_WEBSOCKET_KEY, "must be 16 bytes in base64"))?;
        let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
        let ours = lists(headers, &header::SEC_WEBSOCKET_PROTOCOL, |token| token == PROTOCOL);
        Ok(Self { accept, mode: if ours { Mode::V1 } else { Mode::Plain } })
    }
}

/// The value of a header that is there exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok().map(str::trim)
}

/// Whether a token of a comma-separated header, which may be there more than once, fits.
fn lists(headers: &HeaderMap, name: &HeaderName, fits: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|token| fits(token.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn offer<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Offer, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(name).unwrap(), value.try_into().unwrap());
        }
        Offer::of(&Method::GET, Version::HTTP_11, &headers)
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let offer = offer(GOOD).unwrap();
        assert_eq!(offer.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(offer.mode, Mode::Plain);
    }

    #[test]
    fn the_subprotocol_is_found_among_others() {
        let with = |more: &[(&'static str, &'static str)]| {
            offer(GOOD.into_iter().chain(more.iter().copied())).unwrap().mode
        };
        assert_eq!(with(&[("sec-websocket-protocol", "chat, bay.terminal.v1 ,x")]), Mode::V1);
        assert_eq!(with(&[("sec-websocket-protocol", "a"), ("sec-websocket-protocol", PROTOCOL)]), Mode::V1);
        assert_eq!(with(&[("sec-websocket-protocol", "bay.terminal.v10, BAY.TERMINAL.V1")]), Mode::Plain);
    }

    #[test]
    fn a_missing_wrong_or_doubled_header_is_refused() {
        for (index, (name, _)) in GOOD.iter().enumerate() {
            let without = GOOD.into_iter().enumerate().filter(|(i, _)| *i != index).map(|(_, line)| line);
            assert!(offer(without.clone()).is_err(), "without {name}");
            assert!(offer(without.chain([(*name, "nonsense")])).is_err(), "wrong {name}");
        }
        for more in [
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
        ] {
            assert!(offer(GOOD.into_iter().chain([more])).is_err(), "{more:?}");
        }
        for key in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j", "****************"] {
            let other = GOOD.map(|(name, value)| (name, if name.ends_with("key") { key } else { value }));
            assert!(offer(other).is_err(), "{key}");
        }
    }

    #[test]
    fn other_methods_and_versions_are_refused() {
        let headers: HeaderMap = GOOD
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.try_into().unwrap()))
            .collect();
        assert!(Offer::of(&Method::POST, Version::HTTP_11, &headers).is_err());
        assert!(Offer::of(&Method::GET, Version::HTTP_10, &headers).is_err());
        assert!(Offer::of(&Method::GET, Version::HTTP_11, &headers).is_ok());
    }
}
