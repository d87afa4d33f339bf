//! When a forwarded body last moved: what counts as stuck is a pause, however long the whole takes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::client::RequestBody;

/// How long a runtime may take to answer once it has the whole body, or to take more of it. Unpacking an archive, after
/// its turn has come, is the slowest there is.
const PATIENCE: Duration = Duration::from_secs(600);

/// The clock of one forward.
pub(super) struct Progress {
    began: Instant,
    /// Milliseconds from `began` to the last movement.
    moved: Arc<AtomicU64>,
}

impl Progress {
    /// The clock starts now.
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), moved: Arc::default() }
    }

    /// The same body; each piece that is taken of it counts as movement.
    pub(super) fn watch(&self, body: RequestBody) -> RequestBody {
        Watched { body, began: self.began, moved: Arc::clone(&self.moved) }.boxed_unsync()
    }

    /// Waits for an answer's head until `bound`, or until nothing has moved for too long.
    pub(super) async fn head<T>(&self, answer: impl Future<Output = T>, bound: Instant) -> Result<T, String> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let patience = self.last() + PATIENCE;
            let until = patience.min(bound);
            match tokio::time::timeout_at(until, &mut answer).await {
                Ok(answered) => return Ok(answered),
                Err(_) if until < bound && self.last() + PATIENCE > until => {}
                Err(_) => return Err("timeout".to_owned()),
            }
        }
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }
}

struct Watched {
    body: RequestBody,
    began: Instant,
    moved: Arc<AtomicU64>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.moved.store(ms, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
