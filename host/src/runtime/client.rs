//! One container's HTTP client.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::handshake::{Credentials, Refused};
use bay_ship_api::http::{Health, Meta};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::connect::Connector;
use crate::driver::{ContainerRef, ContainerStatus, Driver, DriverError};

/// The largest answer of a runtime that Bay holds in memory: an 8 MiB file in base64 and its JSON, and the
/// worst case of two full output streams escaped.
const MAX_ANSWER: usize = 16 << 20;
/// Idle connections kept per container: more than one kernel queue and a few file calls never use.
const MAX_IDLE: usize = 8;
/// How long an idle connection is kept: less than the 10 s after which Ship closes one, so that no request meets that.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// Before a runtime is looked for again that does not listen yet: it takes some 20 ms.
const NOBODY_PAUSE: Duration = Duration::from_millis(5);
/// RFC 3986's unreserved characters stay; everything else in a path segment is encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Body of a request to a runtime.
pub type RequestBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// Why a runtime could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The driver could not reach it.
    #[error("could not connect: {0}")]
    Dial(#[source] DriverError),
    /// Whoever answered is not this session's runtime.
    #[error("refused: {0}")]
    Stranger(Refused),
    /// It accepted, and did not prove itself in time.
    #[error("no handshake in time")]
    HandshakeTimeout,
    /// The connection broke.
    #[error("connection broke: {0}")]
    Io(#[source] std::io::Error),
    /// No connection could be had: nothing was sent.
    #[error("could not connect: {0}")]
    Unreached(String),
    /// It does not speak HTTP as agreed, or went away mid-call.
    #[error("{0}")]
    Http(String),
    /// It answered more than Bay takes.
    #[error("answered more than {MAX_ANSWER} bytes")]
    TooLarge,
    /// It did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// A whole answer.
#[derive(Debug)]
pub struct RuntimeResponse {
    /// Status.
    pub status: StatusCode,
    /// Head.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// What to ask of a runtime; built from an adapter's plan or by Bay itself.
#[derive(Debug)]
pub(super) struct RuntimeRequest {
    pub(super) method: Method,
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: RequestBody,
}

impl RuntimeError {
    /// Whether nobody listened, or whoever did hung up before a word was said.
    fn is_nobody_yet(&self) -> bool {
        let kind = match self {
            Self::Dial(DriverError::Io { source, .. }) | Self::Io(source) => source.kind(),
            _ => return false,
        };
        matches!(
            kind,
            ErrorKind::NotFound
                | ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
        )
    }
}

/// A pooled client of one container of one generation.
pub struct RuntimeClient {
    connector: Connector,
    http: Client<Connector, RequestBody>,
}

impl std::fmt::Debug for RuntimeClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeClient").field("container", &self.connector.container.name).finish()
    }
}

impl RuntimeClient {
    /// Connects to nothing yet.
    pub fn new(
        driver: Arc<dyn Driver>,
        container: ContainerRef,
        port: u16,
        credentials: Credentials,
    ) -> Self {
        let connector = Connector { driver, container, port, credentials: Arc::new(credentials) };
        let http = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(MAX_IDLE)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(connector.clone());
        Self { connector, http }
    }

    /// Waits until the runtime accepts a connection and proves itself. Where its socket listens from before it
    /// starts, one attempt waits exactly as long as the start takes; where it makes its own, there is a moment in
    /// which nobody listens yet, and a port published by an engine hangs up meanwhile.
    pub async fn wait_ready(&self, patience: Duration) -> Result<(), RuntimeError> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.connector.connect(left).await {
                Err(error) if error.is_nobody_yet() && left > NOBODY_PAUSE => {
                    tokio::time::sleep(NOBODY_PAUSE).await;
                }
                proven => return proven.map(drop),
            }
        }
    }

    /// `GET /health`.
    pub async fn health(&self, patience: Duration) -> Result<Health, RuntimeError> {
        self.get_json("health", patience).await
    }

    /// `GET /meta`.
    pub async fn meta(&self, patience: Duration) -> Result<Meta, RuntimeError> {
        self.get_json("meta", patience).await
    }

    /// Whether somebody paused the container: then nothing that is sent is answered.
    pub fn is_paused(&self) -> bool {
        self.connector.driver.is_paused(&self.connector.container)
    }

    /// How the container is: for a caller that could not reach it.
    pub(super) async fn container_state(&self) -> Result<ContainerStatus, DriverError> {
        self.connector.driver.health().await?;
        self.connector.driver.inspect(&self.connector.container).await
    }

    async fn get_json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, RuntimeError> {
        let request = RuntimeRequest {
            method: Method::GET,
            path: vec![path.to_owned()],
            query: Vec::new(),
            headers: Vec::new(),
            body: empty(),
        };
        let asked = async {
            let response = self.send(request).await?;
            let answer = collect(response).await?;
            if !answer.status.is_success() {
                return Err(RuntimeError::Http(format!("/{path} answered {}", answer.status)));
            }
            serde_json::from_slice(&answer.body)
                .map_err(|e| RuntimeError::Http(format!("/{path} is not what it should be: {e}")))
        };
        tokio::time::timeout(patience, asked).await.map_err(|_| RuntimeError::Timeout(patience))?
    }

    /// Sends a request and returns its head; the body streams.
    pub(super) async fn send(
        &self,
        request: RuntimeRequest,
    ) -> Result<http::Response<Incoming>, RuntimeError> {
        let mut built = http::Request::new(request.body);
        *built.method_mut() = request.method;
        *built.uri_mut() = uri(&request.path, &request.query)?;
        for (name, value) in request.headers {
            built.headers_mut().append(name, value);
        }
        self.http.request(built).await.map_err(|e| {
            let why = describe(&e);
            if e.is_connect() { RuntimeError::Unreached(why) } else { RuntimeError::Http(why) }
        })
    }
}

/// Reads a whole answer, up to the bound.
pub(super) async fn collect(response: http::Response<Incoming>) -> Result<RuntimeResponse, RuntimeError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| {
        if e.is::<http_body_util::LengthLimitError>() {
            RuntimeError::TooLarge
        } else {
            RuntimeError::Http(format!("went away mid-answer: {e}"))
        }
    })?;
    Ok(RuntimeResponse { status: head.status, headers: head.headers, body: body.to_bytes() })
}

pub(super) fn empty() -> RequestBody {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn full(body: Vec<u8>) -> RequestBody {
    Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync()
}

/// Builds the URI from segments and pairs; what a guest sent is only ever data in it.
fn uri(path: &[String], query: &[(String, String)]) -> Result<http::Uri, RuntimeError> {
    let mut text = String::new();
    for segment in path {
        text.push('/');
        text.extend(utf8_percent_encode(segment, SEGMENT));
    }
    for (i, (name, value)) in query.iter().enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        text.extend(utf8_percent_encode(name, SEGMENT));
        text.push('=');
        text.extend(utf8_percent_encode(value, SEGMENT));
    }
    http::Uri::builder()
        .scheme("http")
        // The host names the pool, not an address: this client has exactly one place to connect to.
        .authority("runtime")
        .path_and_query(text)
        .build()
        .map_err(|e| RuntimeError::Http(format!("request cannot be written: {e}")))
}

/// hyper's own message says little; its sources say what happened.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(": ");
        text.push_str(&e.to_string());
        source = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_values_cannot_leave_their_place() {
        let u =
            uri(&["fs".into(), "../a b?x#y/z".into()], &[("path".into(), "a&b=c/../d\r\n".into())]).unwrap();
        assert_eq!(u.path(), "/fs/..%2Fa%20b%3Fx%23y%2Fz");
        assert_eq!(u.query(), Some("path=a%26b%3Dc%2F..%2Fd%0D%0A"));
    }
}
