//! One connection: what it speaks, its bounds, and its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use http::header;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::arriving::Arriving;
use super::leaving::{Leaving, SMALL};
use super::patience::{PatientIo, Progress, Underway, Verdict};
use super::peers::Counted;
use super::tls::Tls;
use super::{Ending, Limits, Peer};

/// Largest head of a request, and what is read ahead of a body.
const MAX_HEAD: usize = 64 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 100;
/// HTTP/2: requests of one connection at once.
const MAX_STREAMS: u32 = 128;
/// HTTP/2: what a client may send of one body, and of all bodies of a connection, before somebody reads it.
const WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
/// HTTP/2: what of one answer is held ready.
const SEND_BUFFER: usize = 256 << 10;
/// HTTP/2: streams that a client may open and reset before Bay has looked at them. More is the attack known as rapid
/// reset, and ends the connection.
const MAX_RESETS: usize = 32;
/// HTTP/2: streams that Bay itself may have had to reset.
const MAX_OWN_RESETS: usize = 256;

/// A place among all connections and among those of its address.
#[derive(Debug)]
pub(super) struct Place {
    _slot: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Place {
    pub(super) fn new(slot: OwnedSemaphorePermit, counted: Counted) -> Self {
        metrics::gauge!("bay_connections").increment(1);
        Self { _slot: slot, _counted: counted }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("bay_connections").decrement(1);
    }
}

/// The three steps of the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Ends {
    /// Take no more requests.
    pub(super) drain: CancellationToken,
    /// End streams.
    pub(super) streams: CancellationToken,
    /// End everything.
    pub(super) cut: CancellationToken,
}

/// What all connections of a listener share.
pub(super) struct Serving {
    router: Router,
    limits: Limits,
    tls: Option<Arc<Tls>>,
    ends: Ends,
    protocol: auto::Builder<TokioExecutor>,
}

impl Serving {
    pub(super) fn new(router: Router, limits: Limits, tls: Option<Arc<Tls>>, ends: Ends) -> Self {
        let mut protocol = auto::Builder::new(TokioExecutor::new());
        // Heads are timed here: hyper's own bound would also be that of an idle connection.
        protocol.http1().header_read_timeout(None).max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
        protocol
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.stall)
            .keep_alive_timeout(limits.stall)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_OWN_RESETS);
        Self { router, limits, tls, ends, protocol }
    }

    /// Serves a connection to its end. A client that breaks off or sends no HTTP is its own business.
    pub(super) async fn run(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place) {
        // Answers are small and wanted at once; without this each waits for the other side's delayed ACK.
        let _best_effort = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.speak(stream, peer, place).await };
        let handshake = tokio::time::timeout(self.limits.head, tls.accept(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = self.ends.drain.cancelled() => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.speak(stream, peer, place).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS handshake"),
            Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
        }
    }

    async fn speak<S>(&self, stream: S, peer: SocketAddr, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let progress = Progress::new();
        let stream = PatientIo::new(stream, Arc::clone(&progress), self.limits.stall, place);
        let service = {
            let progress = Arc::clone(&progress);
            let (router, stall) = (self.router.clone(), self.limits.stall);
            let ending = Ending(self.ends.streams.clone());
            hyper::service::service_fn(move |request: http::Request<Incoming>| {
                let (underway, version) = (progress.begin(), request.version());
                let mut request = arrived(request, stall);
                request.extensions_mut().insert(Peer(peer));
                request.extensions_mut().insert(ending.clone());
                let answer = router.clone().oneshot(request);
                let (progress, ending) = (Arc::clone(&progress), ending.clone());
                async move {
                    let Ok(answer) = answer.await;
                    Ok::<_, Infallible>(leaving(answer, &progress, ending, underway, version))
                }
            })
        };
        let connection = self.protocol.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // Since when it has been asked to end.
        let mut asked: Option<Instant> = None;
        loop {
            let until = match progress.verdict(&self.limits) {
                Verdict::Wait(until) => until,
                Verdict::Leave => {
                    if asked.is_some_and(|since| since.elapsed() >= self.limits.stall) {
                        return;
                    }
                    asked.get_or_insert_with(Instant::now);
                    connection.as_mut().graceful_shutdown();
                    Instant::now() + self.limits.stall
                }
                Verdict::Abandon(why) => return tracing::debug!(%peer, why, "connection given up"),
            };
            tokio::select! {
                _ended = connection.as_mut() => return,
                () = tokio::time::sleep_until(until) => {}
                () = self.ends.drain.cancelled(), if asked.is_none() => {
                    asked = Some(Instant::now());
                    connection.as_mut().graceful_shutdown();
                }
                () = self.ends.cut.cancelled() => return,
            }
        }
    }
}

fn arrived(request: http::Request<Incoming>, stall: std::time::Duration) -> Request {
    request.map(|body| {
        if body.is_end_stream() {
            axum::body::Body::empty()
        } else {
            axum::body::Body::new(Arriving::new(body, stall))
        }
    })
}

fn leaving(
    answer: axum::response::Response,
    progress: &Arc<Progress>,
    ending: Ending,
    underway: Underway,
    version: http::Version,
) -> http::Response<Leaving> {
    let small = answer.body().size_hint().upper().is_some_and(|most| most <= SMALL);
    let events = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    // On HTTP/1 a small one is in the socket at once; on HTTP/2 it waits for a window that the client may never open.
    let turn = (!small || version == http::Version::HTTP_2).then(|| progress.watch());
    answer.map(|body| Leaving::new(body, turn, events.then_some(ending), underway))
}
