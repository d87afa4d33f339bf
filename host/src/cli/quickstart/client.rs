//! One request at a time over HTTP/1.1, with the time it took.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::QuickstartError;

/// The longest a step may take: the first start of a sandbox makes a network, a file system and a kernel.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bay's answers are at most 8 MiB; more than that is not Bay.
const MAX_ANSWER: usize = 16 << 20;

/// A request of the demonstration, as data: sent, and shown as a curl line, from the same value.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: &'static str,
    /// Path and query. Made from words of this module and ids that Bay minted.
    pub(super) target: String,
    pub(super) body: Option<Value>,
}

impl Call {
    /// A request without a body.
    pub(super) fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), body: None }
    }

    /// A request with a JSON body.
    pub(super) fn json(method: &'static str, target: impl Into<String>, body: Value) -> Self {
        Self { method, target: target.into(), body: Some(body) }
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Null where there is no body.
    pub(super) body: Value,
    pub(super) took: Duration,
}

/// Where Bay listens, and the key.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    key: String,
}

impl Client {
    pub(super) fn new(address: SocketAddr, key: String) -> Self {
        Self { address, key }
    }

    /// Sends it and waits for the whole answer.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, QuickstartError> {
        let began = Instant::now();
        let failed = |reason: String| QuickstartError::NoAnswer {
            request: format!("{} {}", call.method, call.target),
            reason,
        };
        let (status, bytes) = tokio::time::timeout(PATIENCE, self.exchange(call))
            .await
            .map_err(|_| failed(format!("waited {} s", PATIENCE.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        let took = began.elapsed();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .map_err(|error| failed(format!("status {status} with a body that is not JSON: {error}")))?
        };
        Ok(Answer { status, body, took })
    }

    async fn exchange(&self, call: &Call) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let body = call.body.as_ref().map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(call.method)
            .uri(&call.target)
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.key));
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let status = answer.status().as_u16();
        let bytes = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        drop(sender);
        connection.abort();
        Ok((status, bytes))
    }
}
