//! Asks the Bay that runs on a data directory, by its admin socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::edge::admin_socket;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A page of keys is far below it; more is not Bay.
const MAX_ANSWER: usize = 1 << 20;

/// Sends one request; the answer's body where Bay says yes, else its words. An answer without a body reads as null.
pub(super) async fn ask<T: DeserializeOwned>(
    data_dir: &Path,
    method: &str,
    target: &str,
    body: Option<&Value>,
) -> anyhow::Result<T> {
    let stream = admin_socket::connect(data_dir).await.with_context(|| {
        format!(
            "a Bay runs on {} and its admin socket does not answer; try again, or stop that Bay first",
            data_dir.display()
        )
    })?;
    let exchanged = tokio::time::timeout(PATIENCE, exchange(stream, method, target, body)).await;
    let (ok, bytes) =
        exchanged.map_err(|_| anyhow!("Bay did not answer within {} s", PATIENCE.as_secs()))??;
    let value: Value = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).context("Bay's answer is not JSON")?
    };
    if !ok {
        bail!("{}", value["error"]["message"].as_str().unwrap_or("Bay refused, and said no reason"));
    }
    serde_json::from_value(value).context("Bay's answer is of another version")
}

async fn exchange(
    stream: UnixStream,
    method: &str,
    target: &str,
    body: Option<&Value>,
) -> anyhow::Result<(bool, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(target).header(HOST, "localhost");
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
    let ok = answer.status().is_success();
    let bytes = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    connection.abort();
    let bytes = bytes.map_err(|error| anyhow!("Bay's answer broke off: {error}"))?.to_bytes();
    Ok((ok, bytes))
}
