//! Accepts connections, over TLS where that is configured, and speaks HTTP/1.1 and HTTP/2 on each.
//!
//! ```text
//! accept ──▶ a place ──▶ TLS ──▶ connection ──▶ router
//!  (peers)    (bounded)  (bounded in time)  │
//!                                           └── watched: heads, bodies and answers that do not move end it
//! ```
//!
//! A client costs a place from the moment it is accepted until its socket is closed, upgraded or not. The end comes
//! in three steps: nothing new is taken and calls in flight finish; streams, which would not end by themselves, are
//! ended in good order; what is left is cut off.

mod arriving;
mod connection;
mod leaving;
mod patience;
mod peers;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::ServerConfig;
use connection::Place;
use peers::Peers;
pub use tls::{Tls, TlsError};

/// Pause after `accept` failed for want of descriptors, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long streams have to say goodbye at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// The peer's address, for what only loopback may do.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Cancelled when streams must end because Bay does. Every request carries one, for handlers that stream or upgrade;
/// event streams are ended by the server itself.
#[derive(Debug, Clone)]
pub struct Ending(pub CancellationToken);

/// What a client may take: places and time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most connections at once; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// Most of one address that is not this machine's own.
    pub per_address: usize,
    /// Time for a request's head once it has begun to arrive, and for a TLS handshake.
    pub head: Duration,
    /// How long a connection without a request is kept.
    pub idle: Duration,
    /// How long a body may not arrive, or an answer not be taken, before the client counts as gone.
    pub stall: Duration,
    /// How long calls in flight may go on after Bay was asked to end.
    pub drain: Duration,
}

impl Limits {
    /// As configured.
    pub fn of(config: &ServerConfig) -> Self {
        let connections = usize::try_from(config.connections).unwrap_or(usize::MAX);
        let per_address = match config.connections_per_address {
            Some(number) => usize::try_from(number).unwrap_or(usize::MAX),
            None => connections.div_ceil(4),
        };
        Self {
            connections,
            per_address,
            head: *config.head_timeout,
            idle: *config.idle_timeout,
            stall: *config.client_timeout,
            drain: *config.drain_timeout,
        }
    }
}

/// A listener with what it serves.
pub struct Server {
    /// Where connections come from.
    pub listener: TcpListener,
    /// Who answers.
    pub router: Router,
    /// What clients may take.
    pub limits: Limits,
    /// Certificate and key; null: plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

impl Server {
    /// Serves until `shutdown` resolves, then lets calls in flight end.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let ends = connection::Ends::default();
        // More than the runtime's semaphore takes is as good as none.
        let connections = self.limits.connections.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(connections));
        let peers = Arc::new(Peers::new(self.limits.per_address));
        let serving = connection::Serving::new(self.router, self.limits.clone(), self.tls, ends.clone());
        let serving = Arc::new(serving);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &places) => accepted,
                () = &mut shutdown => break,
            };
            let Some((stream, peer, slot)) = accepted else { continue };
            let Some(counted) = peers.admit(peer.ip()) else {
                tracing::debug!(%peer, "too many connections of this address");
                continue;
            };
            let place = Place::new(slot, counted);
            tokio::spawn(Arc::clone(&serving).run(stream, peer, place));
        }
        drop(self.listener);
        end(&ends, &places, connections, self.limits.drain).await;
    }
}

/// One connection with a place for it; null where there was none to accept.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    // Closed by nobody.
    let slot = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, slot)),
        Err(error) => {
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn end(ends: &connection::Ends, places: &Arc<Semaphore>, connections: usize, drain: Duration) {
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    let gone = async |patience| tokio::time::timeout(patience, places.acquire_many(all)).await.is_ok();
    ends.drain.cancel();
    if gone(drain).await {
        return;
    }
    ends.streams.cancel();
    if !gone(FAREWELL).await {
        tracing::warn!("some calls were still in flight at the end");
    }
    ends.cut.cancel();
}

#[cfg(test)]
mod tests;
