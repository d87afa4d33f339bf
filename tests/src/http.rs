//! A small blocking HTTP/1.1 client, one connection a request.
//!
//! It is written here rather than taken from a library because the tests send what a well-behaved client never
//! would: two hosts, broken bodies, lengths that lie, requests that are abandoned half way.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Largest answer that is read: a server that sends without end must fail the test, not fill the memory.
const MAX_ANSWER: usize = 256 << 20;

/// A request as bytes on the wire.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Headers, as sent.
    pub headers: Vec<(String, String)>,
    /// Body; a `Content-Length` goes with it when there is one.
    pub body: Option<Vec<u8>>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, with any chunking undone.
    pub body: Vec<u8>,
    /// From the first byte sent to the last byte read.
    pub took: Duration,
    /// What was asked, for messages.
    pub asked: String,
}

impl Response {
    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{}: {} is not JSON ({e}): {}", self.asked, self.status, self.brief()))
    }

    /// The body as JSON when the status is the one wanted.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{} answered {}", self.asked, self.brief());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The body's beginning, for messages.
    pub fn brief(&self) -> String {
        self.text().chars().take(1500).collect()
    }
}

/// Sends a request and reads the answer.
///
/// # Errors
/// Whatever the connection says, and `TimedOut` when the answer is not complete by `limit`.
pub fn send(addr: SocketAddr, request: &Request, limit: Duration) -> std::io::Result<Response> {
    let began = Instant::now();
    let deadline = began + limit;
    let mut stream = open(addr, request, deadline)?;
    answer(&mut stream, request, began, deadline)
}

/// The same over a unix socket.
///
/// # Errors
/// As [`send`].
pub fn send_unix(socket: &Path, request: &Request, limit: Duration) -> std::io::Result<Response> {
    let began = Instant::now();
    let deadline = began + limit;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    write(&mut stream, request)?;
    answer(&mut stream, request, began, deadline)
}

fn answer(
    stream: &mut impl Wire,
    request: &Request,
    began: Instant,
    deadline: Instant,
) -> std::io::Result<Response> {
    let raw = read_all(stream, deadline)?;
    let asked = format!("{} {}", request.method, request.target);
    parse(&raw, request.method == "HEAD", began.elapsed(), asked)
}

/// Sends a request and leaves the answer unread: dropping the stream is a client that went away.
///
/// # Errors
/// Whatever the connection says.
pub fn open(addr: SocketAddr, request: &Request, deadline: Instant) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&addr, left(deadline)?)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    write(&mut stream, request)?;
    Ok(stream)
}

fn write(stream: &mut impl Write, request: &Request) -> std::io::Result<()> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = &request.body {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    // A server may refuse a body before it has read it all and close: its answer is what counts then.
    match stream.write_all(request.body.as_deref().unwrap_or_default()) {
        Err(e) if !matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Err(e),
        _ => Ok(()),
    }
}

/// Sends bytes as they are and reads until the other side closes or `limit` passes.
///
/// # Errors
/// Whatever the connection says.
pub fn send_raw(addr: SocketAddr, bytes: &[u8], limit: Duration) -> std::io::Result<Response> {
    let began = Instant::now();
    let deadline = began + limit;
    let mut stream = TcpStream::connect_timeout(&addr, left(deadline)?)?;
    stream.write_all(bytes)?;
    let raw = read_all(&mut stream, deadline)?;
    parse(&raw, false, began.elapsed(), "raw bytes".into())
}

/// The rest of an answer of which a part has been read.
///
/// # Errors
/// Whatever the connection says.
pub fn finish(stream: &mut TcpStream, read: Vec<u8>, asked: String) -> std::io::Result<Response> {
    let began = Instant::now();
    let mut raw = read;
    let length = String::from_utf8_lossy(&raw).lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or_default()];
    stream.read_exact(&mut body)?;
    raw.extend_from_slice(&body);
    parse(&raw, false, began.elapsed(), asked)
}

fn left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A connection whose reads can be given a limit.
trait Wire: Read {
    fn patience(&self, limit: Duration) -> std::io::Result<()>;
}

impl Wire for TcpStream {
    fn patience(&self, limit: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(limit))
    }
}

impl Wire for UnixStream {
    fn patience(&self, limit: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(limit))
    }
}

fn read_all(stream: &mut impl Wire, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    let mut chunk = [0; 64 << 10];
    loop {
        stream.patience(left(deadline)?)?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(raw),
            Ok(n) => raw.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // What came before the reset may be a whole answer.
            Err(e) if e.kind() == ErrorKind::ConnectionReset && !raw.is_empty() => return Ok(raw),
            Err(e) => return Err(e),
        }
        assert!(raw.len() <= MAX_ANSWER, "an answer of more than {MAX_ANSWER} bytes");
    }
}

fn parse(raw: &[u8], head_only: bool, took: Duration, asked: String) -> std::io::Result<Response> {
    let bad = |what: String| std::io::Error::new(ErrorKind::InvalidData, what);
    let mut space = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut space);
    let end = match answer.parse(raw) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => {
            return Err(bad(format!("{asked}: the connection closed after {} bytes", raw.len())));
        }
        Err(e) => return Err(bad(format!("{asked}: not HTTP: {e}"))),
    };
    let headers: Vec<(String, String)> = answer
        .headers
        .iter()
        .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).into_owned()))
        .collect();
    let status = answer.code.unwrap_or_default();
    let find = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let rest = &raw[end..];
    let body = if head_only || status == 204 || status == 304 {
        assert!(rest.is_empty(), "{asked}: {status} came with a body");
        Vec::new()
    } else if find("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        unchunk(rest).ok_or_else(|| bad(format!("{asked}: the chunked body broke off")))?
    } else if let Some(length) = find("content-length") {
        let length: usize = length.parse().map_err(|_| bad(format!("{asked}: content-length {length}")))?;
        if rest.len() != length {
            return Err(bad(format!("{asked}: {} bytes of body, {length} promised", rest.len())));
        }
        rest.to_vec()
    } else {
        rest.to_vec()
    };
    Ok(Response { status, headers, body, took, asked })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((at, size)) = httparse::parse_chunk_size(rest).ok()? else {
            return None;
        };
        let size = usize::try_from(size).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(at..at + size)?);
        rest = rest.get(at + size + 2..)?;
    }
}

/// Percent-encodes all but the unreserved characters, for path segments and query values.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
