//! Dialling and the mutual proof, as hyper wants a connector.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bay_ship_api::handshake::{ACCEPTED, BaySide, CHALLENGE_LEN, Credentials};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::RuntimeError;
use crate::driver::{ContainerRef, Driver, Stream};

/// How long a runtime has to prove itself on a connection it accepted.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where connections of one container go, and what both sides must prove.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) driver: Arc<dyn Driver>,
    pub(super) container: ContainerRef,
    pub(super) port: u16,
    pub(super) credentials: Arc<Credentials>,
}

impl Connector {
    /// A proven connection. `patience` bounds the handshake: a runtime that is still starting accepts late.
    pub(super) async fn connect(&self, patience: Duration) -> Result<Stream, RuntimeError> {
        let proven = async {
            let mut stream =
                self.driver.dial(&self.container, self.port).await.map_err(RuntimeError::Dial)?;
            shake_hands(&mut stream, &self.credentials).await?;
            Ok(stream)
        };
        tokio::time::timeout(patience, proven).await.map_err(|_| RuntimeError::HandshakeTimeout)?
    }
}

async fn shake_hands(stream: &mut Stream, credentials: &Credentials) -> Result<(), RuntimeError> {
    let mut nonce = [0u8; 32];
    getrandom::fill(&mut nonce).map_err(|e| RuntimeError::Io(std::io::Error::other(e.to_string())))?;
    let side = BaySide::new(credentials, nonce);
    stream.write_all(&side.hello()).await.map_err(RuntimeError::Io)?;
    let mut answer = [0u8; CHALLENGE_LEN];
    stream.read_exact(&mut answer).await.map_err(RuntimeError::Io)?;
    let proof = side.verify(&answer).map_err(RuntimeError::Stranger)?;
    stream.write_all(&proof).await.map_err(RuntimeError::Io)?;
    if stream.read_u8().await.map_err(RuntimeError::Io)? == ACCEPTED {
        Ok(())
    } else {
        Err(RuntimeError::Stranger(bay_ship_api::handshake::Refused::Magic))
    }
}

impl tower::Service<http::Uri> for Connector {
    type Response = Proven;
    type Error = RuntimeError;
    type Future = Pin<Box<dyn Future<Output = Result<Proven, RuntimeError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), RuntimeError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(HANDSHAKE_TIMEOUT).await.map(|s| Proven(TokioIo::new(s))) })
    }
}

/// A connection whose other end proved itself.
pub(super) struct Proven(TokioIo<Stream>);

impl Connection for Proven {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Proven {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Proven {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
