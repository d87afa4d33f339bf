//! Accepts connections: bounded in number, and in the time a client may take over a request's head.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

/// Most connections at once; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take to send a request's head; also bounds how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long calls in flight may go on after Bay was asked to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed for want of descriptors, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The peer's address, for what only loopback may do.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Serves until `shutdown` resolves, then lets calls in flight end.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (ending, watching) = watch::channel(false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (stream, peer) = match accepted {
            Ok(pair) => pair,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = connection(stream, peer, router.clone(), watching.clone());
        tokio::spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(listener);
    drop(watching);
    let _nobody = ending.send(true);
    // Each connection holds the other end until it has ended.
    if tokio::time::timeout(DRAIN_TIMEOUT, ending.closed()).await.is_err() {
        tracing::warn!("some calls were still in flight at the end");
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, mut ending: watch::Receiver<bool>) {
    // Answers are small and wanted at once; without this each waits for the other side's delayed ACK.
    let _best_effort = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // An error here is a client that broke off or sent no HTTP: its own business.
    tokio::select! {
        _ended = connection.as_mut() => return,
        _told = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    let _ended = connection.await;
}
