//! An answer's body on its way out: known to be under way until it is gone, and ended with Bay where it would not end
//! by itself.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Ending;
use super::patience::{Turn, Underway};

/// Up to here a body is no stream: it is handed on in one piece and nobody waits for the client to take it.
pub(super) const SMALL: u64 = 64 << 10;

/// See the module.
pub(super) struct Leaving {
    body: axum::body::Body,
    turn: Option<Turn>,
    ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _underway: Underway,
}

impl Leaving {
    /// `turn`: for a body that is streamed; `ending`: for a stream of events.
    pub(super) fn new(
        body: axum::body::Body,
        turn: Option<Turn>,
        ending: Option<Ending>,
        underway: Underway,
    ) -> Self {
        let ending = ending.map(|Ending(token)| Box::pin(token.cancelled_owned()));
        Self { body, turn, ending, _underway: underway }
    }
}

impl Body for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Some(turn) = &self.turn {
            if frame.is_pending() { turn.of_bay() } else { turn.of_client() }
        }
        if frame.is_pending()
            && let Some(ending) = &mut self.ending
            && ending.as_mut().poll(context).is_ready()
        {
            // A good end of the body, without an event that says the work is done: the client resumes.
            return Poll::Ready(None);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
