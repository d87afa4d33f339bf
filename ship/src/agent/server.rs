//! Connections from Bay: accepted on init's socket, proved by the handshake, then HTTP/1.1.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::handshake::{ACCEPTED, Credentials, HELLO_LEN, NONCE_LEN, PROOF_LEN, ShipSide};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::stream::{Listener, Stream};
use super::{Ship, routes};

/// How long a new connection may take to prove itself.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Between a request's first byte and the end of its head.
const HEAD: Duration = Duration::from_secs(10);
/// Connections at once; more wait in the socket's own queue.
const MAX_CONNECTIONS: usize = 128;
/// How long answers under way may take once the container is told to end: what init's own bound leaves.
const DRAIN: Duration = Duration::from_secs(2);
/// Room for a request's head.
const HEAD_BYTES: usize = 32 << 10;

/// A connection's place among [`MAX_CONNECTIONS`]. Every request carries it, so that what takes a connection over
/// keeps its place.
#[derive(Clone)]
pub(super) struct Connection {
    _place: Arc<OwnedSemaphorePermit>,
}

/// Serves until accepting fails for good, or until the container was told to end and what was under way then is
/// answered, which [`DRAIN`] bounds.
pub(super) async fn serve(
    listener: OwnedFd,
    ship: Arc<Ship>,
    credentials: Credentials,
    ending: watch::Receiver<bool>,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::select! {
        over = accept(listener, ship, credentials, &room, ending.clone()) => return over,
        () = ended(ending) => {}
    }
    // Every connection holds one permit. Whoever is still busy after that learns it from the broken connection.
    let _ = timeout(DRAIN, room.acquire_many(MAX_CONNECTIONS as u32)).await;
    Ok(())
}

/// Resolves once the container is told to end; never where nobody can tell any more.
async fn ended(mut ending: watch::Receiver<bool>) {
    if ending.wait_for(|ending| *ending).await.is_err() {
        std::future::pending().await
    }
}

async fn accept(
    listener: OwnedFd,
    ship: Arc<Ship>,
    credentials: Credentials,
    room: &Arc<Semaphore>,
    ending: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut listener = Listener::of(listener)?;
    let credentials = Arc::new(credentials);
    loop {
        let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) if passes(&error) => {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let (ship, credentials, ending) = (Arc::clone(&ship), Arc::clone(&credentials), ending.clone());
        tokio::spawn(async move {
            let place = Connection { _place: Arc::new(permit) };
            connection(stream, ship, &credentials, place, ending).await;
        });
    }
}

/// Whether accepting may work again in a moment.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::ECONNABORTED | libc::EINTR)
    )
}

async fn connection(
    mut stream: Stream,
    ship: Arc<Ship>,
    credentials: &Credentials,
    place: Connection,
    ending: watch::Receiver<bool>,
) {
    // Whoever does not prove itself is told nothing.
    tokio::select! {
        proved = timeout(HANDSHAKE, handshake(&mut stream, credentials)) => {
            if !matches!(proved, Ok(Ok(true))) {
                return;
            }
        }
        () = ended(ending.clone()) => return,
    }
    let service = service_fn(move |mut request| {
        let ship = Arc::clone(&ship);
        request.extensions_mut().insert(place.clone());
        async move { Ok::<_, std::convert::Infallible>(routes::answer(&ship, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    // How a connection ends is its other side's business.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = ended(ending) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn handshake(stream: &mut Stream, credentials: &Credentials) -> io::Result<bool> {
    let mut hello = [0; HELLO_LEN];
    stream.read_exact(&mut hello).await?;
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|_| io::Error::other("no random numbers"))?;
    let Ok(side) = ShipSide::new(credentials, &hello, nonce) else { return Ok(false) };
    stream.write_all(side.answer()).await?;
    let mut proof = [0; PROOF_LEN];
    stream.read_exact(&mut proof).await?;
    if side.verify(&proof).is_err() {
        return Ok(false);
    }
    stream.write_all(&[ACCEPTED]).await?;
    Ok(true)
}
