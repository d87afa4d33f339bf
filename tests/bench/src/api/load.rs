//! A client that costs little: what it takes of the processors, Bay has not. One connection that stays open, requests
//! written as they are, answers read by their length.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Longer than anything measured here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most of an answer that is read.
const MAX_ANSWER: usize = 4 << 20;

/// Where Bay is, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    address: SocketAddr,
    headers: String,
}

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    headers: String,
    buffer: Vec<u8>,
}

/// A status with its body.
#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    /// The body, where the status is the one wanted.
    pub(crate) fn expect(self, status: u16) -> anyhow::Result<Vec<u8>> {
        ensure!(self.status == status, "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(self.body)
    }
}

impl Wire {
    pub(crate) fn new(address: SocketAddr, key: &str) -> Self {
        Self { address, headers: format!("Host: {address}\r\nAuthorization: Bearer {key}\r\n") }
    }

    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection { stream, headers: self.headers.clone(), buffer: Vec::with_capacity(16 << 10) })
    }
}

impl Connection {
    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\n{}\r\n", self.headers);
        self.send(&request)
    }

    pub(crate) fn delete(&mut self, path: &str) -> anyhow::Result<Answer> {
        let request = format!("DELETE {path} HTTP/1.1\r\n{}\r\n", self.headers);
        self.send(&request)
    }

    pub(crate) fn post(&mut self, path: &str, json: &str) -> anyhow::Result<Answer> {
        self.with_body("POST", path, json)
    }

    pub(crate) fn put(&mut self, path: &str, json: &str) -> anyhow::Result<Answer> {
        self.with_body("PUT", path, json)
    }

    fn with_body(&mut self, method: &str, path: &str, json: &str) -> anyhow::Result<Answer> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
            self.headers,
            json.len()
        );
        self.send(&request)
    }

    fn send(&mut self, request: &str) -> anyhow::Result<Answer> {
        self.stream.write_all(request.as_bytes()).context("send")?;
        self.buffer.clear();
        let mut chunk = [0; 16 << 10];
        loop {
            if let Some(answer) = answer(&self.buffer)? {
                return Ok(answer);
            }
            let read = self.stream.read(&mut chunk).context("read")?;
            ensure!(read > 0, "Bay closed the connection");
            self.buffer.extend_from_slice(&chunk[..read]);
            ensure!(self.buffer.len() <= MAX_ANSWER, "an answer of more than {MAX_ANSWER} bytes");
        }
    }
}

/// A whole answer; null while it is not there.
fn answer(bytes: &[u8]) -> anyhow::Result<Option<Answer>> {
    let mut space = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut space);
    let httparse::Status::Complete(end) = head.parse(bytes).context("not HTTP")? else { return Ok(None) };
    let status = head.code.unwrap_or_default();
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length {
        Some(length) => std::str::from_utf8(length.value)?.parse()?,
        None if status == 204 => 0,
        None => bail!("an answer without a length"),
    };
    Ok(bytes.get(end..end + length).map(|body| Answer { status, body: body.to_vec() }))
}

/// So many threads at once; a failure of one is one of all.
pub(crate) fn at_once<T: Send>(
    number: usize,
    one: impl Fn(usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let one = &one;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..number).map(|number| scope.spawn(move || one(number))).collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|done| done.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))).collect()
    })
}
