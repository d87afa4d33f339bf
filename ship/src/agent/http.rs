//! What every handler needs of HTTP: a JSON body within its bound, query parameters, answers.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::body::Body;
use super::error::{Code, Failure};

/// The largest request: 8 MiB of a file as base64 or as text with escapes, and some room.
const MAX_BODY: usize = 24 << 20;

/// What a handler returns.
pub(super) type Answer = Result<Response<Body>, Failure>;

/// Reads a JSON body within its bound.
pub(super) async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
    let too_large =
        || Failure::new(Code::PayloadTooLarge, format!("the body is larger than {MAX_BODY} bytes"));
    let declared =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > MAX_BODY as u64) {
        return Err(too_large());
    }
    let bytes: Bytes = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
        Err(_) => return Err(Failure::new(Code::ValidationError, "the body did not arrive whole")),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let mut failure = Failure::new(Code::ValidationError, format!("the body does not fit: {error}"));
        failure.details = json!({"errors": [{"field": "", "message": error.to_string()}]});
        failure
    })
}

/// The parameters behind the `?`, percent-decoded. A repeated one counts once, the first time.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Those of a request.
    pub(super) fn of<B>(request: &Request<B>) -> Result<Self, Failure> {
        Self::parse(request.uri().query().unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = percent_decode(name).zip(percent_decode(value));
            pairs.push(decoded.ok_or_else(|| Failure::field("query", "not valid percent-encoded UTF-8"))?);
        }
        Ok(Self(pairs))
    }

    /// A parameter as text, where it is given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, Failure> {
        self.text(name).ok_or_else(|| Failure::field(name, "missing"))
    }

    /// A number, where it is given.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        let parsed = self.text(name).map(str::parse::<T>).transpose();
        parsed.map_err(|_| Failure::field(name, "must be a whole number in range"))
    }

    /// `true` or `false`; false where it is not given.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Failure::field(name, "must be true or false")),
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || (bytes.next()? as char).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// For `filename*` (RFC 5987): everything but letters, digits and a few marks.
pub(super) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte.into());
        } else {
            out.push('%');
            out.push_str(&crate::python::hex(&[byte]).to_ascii_uppercase());
        }
    }
    out
}

/// An entity tag as a header: hexadecimal digits in quotes, always valid.
pub(super) fn quoted(etag: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{etag}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

pub(super) fn ok<T: Serialize>(value: &T) -> Answer {
    Ok(json_response(StatusCode::OK, value))
}

pub(super) fn json_response<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    // Our own types always serialise; an empty object stands in for the impossible branch.
    let bytes = serde_json::to_vec(value).unwrap_or_else(|_| b"{}".to_vec());
    let mut response = Response::new(Body::Whole(Some(bytes.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_gives_text_numbers_and_flags() {
        let query = Query::parse("path=a%20b+c&n=7&yes=true&path=second&bare").unwrap();
        assert_eq!(query.text("path"), Some("a b c"));
        assert_eq!(query.number::<u8>("n"), Ok(Some(7)));
        assert_eq!(query.number::<u8>("other"), Ok(None));
        assert_eq!((query.flag("yes"), query.flag("no")), (Ok(true), Ok(false)));
        assert!(query.flag("n").is_err() && query.number::<u8>("path").is_err());
        assert!(query.required("missing").is_err() && Query::parse("a=%ff").is_err());
        assert_eq!(query.text("bare"), Some(""));
    }

    proptest! {
        #[test]
        fn percent_encoding_is_undone(text: String) {
            prop_assert_eq!(percent_decode(&percent_encode(&text)), Some(text));
        }

        #[test]
        fn any_query_is_read_or_refused(text: String) {
            let _ = Query::parse(&text);
        }
    }
}
