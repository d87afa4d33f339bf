//! A WebSocket from a client to a runtime: both sides switch protocols, then bytes go both ways until one of them, or
//! Bay, ends it.

use std::time::Duration;

use async_trait::async_trait;
use bay_plugin_host::ForwardEnd;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot};

use super::performer::Forwarded;
use super::relay::relay;

/// How long each side may take from its 101 to the first byte.
const SWITCH: Duration = Duration::from_secs(10);
/// Of a runtime's 101, the client is told these.
const ANSWERED: [HeaderName; 1] = [header::SEC_WEBSOCKET_ACCEPT];

/// Why Bay closes a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// 1011, or one of the contract's 44xx.
    pub code: u16,
    /// For a person; at most 123 bytes.
    pub reason: &'static str,
}

/// What Bay alone knows of a connection's end.
#[async_trait]
pub trait Endings: Send + Sync {
    /// Resolves when the connection may not go on, for instance because its credential has run out.
    async fn must_end(&self) -> Close;
    /// Why the runtime is going away, where the reason is not the runtime's.
    async fn why_gone(&self) -> Option<Close>;
}

/// A client's wish to go on as a WebSocket; its handshake has been checked.
pub struct ClientUpgrade {
    /// The client's connection, once the 101 has been written.
    pub connection: OnUpgrade,
    /// `Sec-WebSocket-Key`.
    pub key: HeaderValue,
    /// The subprotocols it offers; none of them is a credential.
    pub protocols: Vec<String>,
    /// What may end it.
    pub endings: Box<dyn Endings>,
}

impl ClientUpgrade {
    /// The handshake with the runtime. Extensions are not offered: what goes by must be frames that Bay knows.
    pub(super) fn head(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut head = vec![
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            (header::SEC_WEBSOCKET_KEY, self.key.clone()),
        ];
        let offered = HeaderValue::from_str(&self.protocols.join(", ")).ok();
        head.extend(offered.filter(|v| !v.is_empty()).map(|v| (header::SEC_WEBSOCKET_PROTOCOL, v)));
        head
    }
}

/// Answers the client with the runtime's 101 and carries bytes until the end. Neither connection is ever used again.
pub(super) async fn carry(
    client: ClientUpgrade,
    mut response: http::Response<Incoming>,
    to_client: oneshot::Sender<Forwarded>,
) -> Result<ForwardEnd, String> {
    let status = StatusCode::SWITCHING_PROTOCOLS;
    let ended =
        |bytes, end: &str| ForwardEnd { status: status.as_u16(), bytes, end: end.to_owned(), refusal: None };
    let headers = answered(response.headers(), &client.protocols);
    let (none, body) = mpsc::channel(1);
    drop(none);
    if to_client.send(Forwarded { status, headers, body }).is_err() {
        return Ok(ended(0, "client_gone"));
    }
    let runtime = tokio::time::timeout(SWITCH, hyper::upgrade::on(&mut response));
    let both = tokio::join!(tokio::time::timeout(SWITCH, client.connection), runtime);
    match both {
        (Ok(Ok(client_side)), Ok(Ok(runtime_side))) => {
            let (bytes, end) =
                relay(TokioIo::new(client_side), TokioIo::new(runtime_side), &*client.endings).await;
            Ok(ended(bytes, end))
        }
        (Ok(Err(_)) | Err(_), _) => Ok(ended(0, "client_gone")),
        (_, Ok(Err(_)) | Err(_)) => Ok(ended(0, "runtime_gone")),
    }
}

/// The client's 101. A subprotocol that it did not offer would end its side of the handshake.
fn answered(runtime: &HeaderMap, offered: &[String]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    for name in ANSWERED {
        headers.extend(runtime.get(&name).map(|value| (name, value.clone())));
    }
    let chosen = runtime.get(header::SEC_WEBSOCKET_PROTOCOL);
    let chosen = chosen.filter(|value| offered.iter().any(|o| value.as_bytes() == o.as_bytes()));
    headers.extend(chosen.map(|value| (header::SEC_WEBSOCKET_PROTOCOL, value.clone())));
    headers
}
