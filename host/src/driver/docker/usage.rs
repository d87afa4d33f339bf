//! How large volumes are. The daemon walks all of them at once, so that the answer is kept for a moment.
//!
//! Asked for by hand: the client library reads only the newest form of the answer, which most daemons do not give.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::engine::{Address, Contact};
use crate::driver::Stream;

/// How long the daemon may walk.
const WALK_LIMIT: Duration = Duration::from_secs(5);
/// For how long an answer is good.
const FRESH: Duration = Duration::from_secs(5);
/// Largest answer: some hundred bytes a volume.
const MAX_ANSWER: usize = 64 << 20;
/// The newest version of the API that answers in the form below.
const NEWEST: usize = 51;

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Volumes")]
    volumes: Option<Vec<Volume>>,
}

#[derive(Deserialize)]
struct Volume {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "UsageData")]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    /// Negative where it is not known.
    #[serde(rename = "Size")]
    size: i64,
}

/// Sizes by name, and when they were asked for.
#[derive(Default)]
pub(super) struct Sizes {
    last: Mutex<Option<(Instant, HashMap<String, u64>)>>,
}

impl Sizes {
    /// None where the daemon takes too long, or is reached by TLS.
    pub(super) async fn of(&self, address: &Address, contact: &Contact, name: &str) -> Option<u64> {
        let mut last = tokio::time::timeout(WALK_LIMIT, self.last.lock()).await.ok()?;
        if last.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
            let sizes = tokio::time::timeout(WALK_LIMIT, ask(address, contact)).await.ok().flatten();
            // A walk that failed is not begun again by the next who asks.
            *last = Some((Instant::now(), sizes.unwrap_or_default()));
        }
        last.as_ref().and_then(|(_, sizes)| sizes.get(name).copied())
    }
}

async fn ask(address: &Address, contact: &Contact) -> Option<HashMap<String, u64>> {
    let stream: Stream = match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await.ok()?),
        Address::Tcp(host) => Box::new(TcpStream::connect(host).await.ok()?),
        Address::Tls(..) => return None,
    };
    let minor = contact.docker.client_version().minor_version.min(NEWEST);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let exchange = async {
        let request = http::Request::get(format!("/v1.{minor}/system/df?type=volume"))
            .header(http::header::HOST, "docker")
            .body(Empty::<Bytes>::new())
            .ok()?;
        let response = sender.send_request(request).await.ok()?;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?;
        serde_json::from_slice::<Answer>(&body.to_bytes()).ok()
    };
    let answer = tokio::select! {
        answer = exchange => answer?,
        _ = connection => return None,
    };
    let size = |volume: Volume| Some((volume.name, u64::try_from(volume.usage?.size).ok()?));
    Some(answer.volumes.unwrap_or_default().into_iter().filter_map(size).collect())
}
