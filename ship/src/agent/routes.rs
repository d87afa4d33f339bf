//! Every route of Ship: one table, then what each does with its request.

use std::sync::Arc;

use bay_ship_api::http::{
    DeleteFileRequest, Health, ListDirRequest, PythonExecRequest, ReadFileRequest, ShellExecRequest,
    WriteFileRequest,
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Ship;
use super::body::{Body, FileRange};
use super::error::{Code, Failure};
use super::meta::meta;

/// The largest request: 8 MiB of a file as base64 or as text with escapes, and some room.
const MAX_BODY: usize = 24 << 20;

type Answer = Result<Response<Body>, Failure>;

/// Answers one request.
pub(super) async fn answer(ship: &Arc<Ship>, request: Request<Incoming>) -> Response<Body> {
    route(ship, request).await.unwrap_or_else(|failure| {
        let (status, body) = failure.body();
        json_response(status, &body)
    })
}

async fn route(ship: &Arc<Ship>, request: Request<Incoming>) -> Answer {
    let (get, post) = (Method::GET, Method::POST);
    let path = request.uri().path().to_owned();
    let expected = match path.as_str() {
        "/health" | "/meta" | "/fs/download" => get,
        "/ipython/exec" | "/shell/exec" | "/fs/read_file" | "/fs/write_file" | "/fs/delete_file"
        | "/fs/list_dir" => post,
        _ => return Err(Failure::new(Code::NotFound, "Ship has no such route")),
    };
    if *request.method() != expected {
        return Err(Failure::new(Code::MethodNotAllowed, format!("this route takes {expected}")));
    }
    match path.as_str() {
        "/health" => ok(&Health { status: "healthy".to_owned() }),
        "/meta" => ok(&meta(ship)),
        "/ipython/exec" => python(ship, request).await,
        "/shell/exec" => shell(ship, request).await,
        "/fs/download" => download(ship, request).await,
        file_call => files(ship, file_call, request).await,
    }
}

async fn python(ship: &Ship, request: Request<Incoming>) -> Answer {
    let python = ship.python.as_ref().ok_or_else(|| unsupported("python"))?;
    let request: PythonExecRequest = body(request).await?;
    ok(&python.exec(request).await?)
}

async fn shell(ship: &Ship, request: Request<Incoming>) -> Answer {
    let shell = ship.shell.as_ref().ok_or_else(|| unsupported("shell"))?;
    let request: ShellExecRequest = body(request).await?;
    if let Some(cwd) = request.cwd.clone() {
        let files = ship.files.clone();
        ship.pool.run(move || files.check_directory("cwd", &cwd)).await?;
    }
    ok(&shell.exec(request).await?)
}

async fn files(ship: &Ship, call: &str, request: Request<Incoming>) -> Answer {
    if !ship.filesystem {
        return Err(unsupported("filesystem"));
    }
    let files = ship.files.clone();
    match call {
        "/fs/read_file" => {
            let request: ReadFileRequest = body(request).await?;
            ok(&ship.pool.run(move || files.read_file(&request)).await?)
        }
        "/fs/write_file" => {
            let request: WriteFileRequest = body(request).await?;
            ok(&ship.pool.run(move || files.write_file(&request)).await?)
        }
        "/fs/delete_file" => {
            let request: DeleteFileRequest = body(request).await?;
            ship.pool.run(move || files.delete_file(&request)).await?;
            ok(&json!({"status": "ok"}))
        }
        _ => {
            let request: ListDirRequest = body(request).await?;
            ok(&ship.pool.run(move || files.list_dir(&request)).await?)
        }
    }
}

async fn download(ship: &Ship, request: Request<Incoming>) -> Answer {
    if !ship.filesystem {
        return Err(unsupported("filesystem"));
    }
    let path = query(request.uri().query().unwrap_or_default(), "path")?;
    let files = ship.files.clone();
    let file = Arc::new(ship.pool.run(move || files.open_download(&path)).await?);
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    // A range of an older version would not fit what was read of it.
    let fresh = request.headers().get(header::IF_RANGE).is_none_or(|tag| *tag == quoted(&file.etag));
    let part = range.filter(|_| fresh).map(|range| Range::parse(range, file.size));
    let (status, offset, length) = match part {
        None | Some(Range::Whole) => (StatusCode::OK, 0, file.size),
        Some(Range::Part(offset, length)) => (StatusCode::PARTIAL_CONTENT, offset, length),
        Some(Range::Outside) => {
            let mut failure = Failure::new(Code::RangeNotSatisfiable, "the range lies outside the file");
            failure.details = json!({"size": file.size});
            return Err(failure);
        }
    };
    let mut response =
        Response::new(Body::File(FileRange::new(Arc::clone(&file), ship.pool.clone(), offset, length)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::ETAG, quoted(&file.etag));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {offset}-{}/{}", offset + length - 1, file.size);
        headers.extend(HeaderValue::from_str(&value).ok().map(|value| (header::CONTENT_RANGE, value)));
    }
    let disposition = format!("attachment; filename*=UTF-8''{}", percent_encode(&file.name));
    headers
        .extend(HeaderValue::from_str(&disposition).ok().map(|value| (header::CONTENT_DISPOSITION, value)));
    Ok(response)
}

/// What a `Range` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// No range that is understood here: the whole file, as HTTP allows.
    Whole,
    Part(u64, u64),
    Outside,
}

impl Range {
    fn parse(text: &str, size: u64) -> Self {
        let Some((first, last)) = text.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
            return Self::Whole;
        };
        let number = |text: &str| text.trim().parse::<u64>().ok();
        match (first.trim(), last.trim()) {
            ("", last) => match number(last) {
                None => Self::Whole,
                Some(0) => Self::Outside,
                Some(_) if size == 0 => Self::Outside,
                Some(count) => Self::Part(size.saturating_sub(count), count.min(size)),
            },
            (first, last) => match (number(first), number(last)) {
                (None, _) => Self::Whole,
                (_, None) if !last.is_empty() => Self::Whole,
                (Some(first), Some(last)) if last < first => Self::Whole,
                (Some(first), _) if first >= size => Self::Outside,
                (Some(first), last) => {
                    let last = last.unwrap_or(u64::MAX).min(size - 1);
                    Self::Part(first, last - first + 1)
                }
            },
        }
    }
}

fn unsupported(capability: &str) -> Failure {
    let mut failure =
        Failure::new(Code::CapabilityNotSupported, format!("this container does not offer {capability}"));
    failure.details = json!({"capability": capability});
    failure
}

/// Reads a JSON body within its bound.
async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
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

/// The value of a query parameter, percent-decoded.
fn query(query: &str, name: &str) -> Result<String, Failure> {
    let value = query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
        .ok_or_else(|| Failure::field(name, "missing"))?;
    percent_decode(value).ok_or_else(|| Failure::field(name, "not valid percent-encoded UTF-8"))
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
fn percent_encode(text: &str) -> String {
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
fn quoted(etag: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{etag}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

fn ok<T: Serialize>(value: &T) -> Answer {
    Ok(json_response(StatusCode::OK, value))
}

fn json_response<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
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
    fn ranges_follow_http() {
        assert_eq!(Range::parse("bytes=0-3", 10), Range::Part(0, 4));
        assert_eq!(Range::parse("bytes=4-", 10), Range::Part(4, 6));
        assert_eq!(Range::parse("bytes=-3", 10), Range::Part(7, 3));
        assert_eq!(Range::parse("bytes=-30", 10), Range::Part(0, 10));
        assert_eq!(Range::parse("bytes=8-99", 10), Range::Part(8, 2));
        assert_eq!(Range::parse("bytes=10-", 10), Range::Outside);
        assert_eq!(Range::parse("bytes=-0", 10), Range::Outside);
        assert_eq!(Range::parse("bytes=0-", 0), Range::Outside);
        for other in ["bytes=3-1", "bytes=a-b", "bytes=1-2,4-5", "lines=1-2", "bytes=", ""] {
            assert_eq!(Range::parse(other, 10), Range::Whole, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_part_always_lies_within_the_file(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", size: u64) {
            if let Range::Part(offset, length) = Range::parse(&text, size) {
                prop_assert!(length > 0 && offset.checked_add(length).is_some_and(|end| end <= size));
            }
        }

        #[test]
        fn percent_encoding_is_undone(text: String) {
            prop_assert_eq!(percent_decode(&percent_encode(&text)), Some(text));
        }

        #[test]
        fn any_query_is_read_or_refused(text: String) {
            let _ = query(&text, "path");
        }
    }
}
