//! Bodies that are passed on as they come: bounded in size, and in how long a pause may be, never in how long the whole
//! takes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::error::{ApiError, ApiResult, Code};
use crate::runtime::RequestBody;

/// Longest pause within a body.
const PAUSE: Duration = Duration::from_secs(60);
/// Read of a body that nobody wants any more, so that its sender gets to the answer: closing a connection with unread
/// bytes takes the answer along. Time, and bytes.
const LINGER: Duration = Duration::from_secs(5);
const MAX_LINGER: usize = 64 << 20;

/// A body, piece by piece.
pub struct Incoming {
    /// None once it has ended.
    body: Option<Body>,
    left: u64,
    max: u64,
    /// Who waits to be asked for the body has not sent any.
    sends: bool,
}

/// Something that is taken piece by piece.
pub trait Pieces: Send + 'static {
    /// The next piece; none at the end.
    fn next_piece(&mut self) -> impl Future<Output = ApiResult<Option<Bytes>>> + Send;
}

/// Why a body could not be passed on to its end: the runtime only sees that it broke off.
#[derive(Clone, Default)]
pub struct Broken(Arc<OnceLock<ApiError>>);

impl Incoming {
    /// Of at most `max` bytes; 413 at once where the head says that it has more.
    pub fn new(headers: &HeaderMap, body: Body, max: u64) -> ApiResult<Self> {
        let sends = !headers.contains_key(header::EXPECT);
        let incoming = Self { body: Some(body), left: max, max, sends };
        let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > max) {
            return Err(incoming.too_large());
        }
        Ok(incoming)
    }

    fn too_large(&self) -> ApiError {
        ApiError::new(Code::PayloadTooLarge, format!("the body is over {} bytes", self.max))
    }
}

impl Pieces for Incoming {
    async fn next_piece(&mut self) -> ApiResult<Option<Bytes>> {
        loop {
            let Some(body) = &mut self.body else { return Ok(None) };
            let frame = tokio::time::timeout(PAUSE, body.frame()).await.map_err(|_| {
                let words = format!("nothing of the body came for {} s", PAUSE.as_secs());
                ApiError::new(Code::ValidationError, words)
            })?;
            let Some(frame) = frame else {
                self.body = None;
                return Ok(None);
            };
            let frame = frame
                .map_err(|_| ApiError::new(Code::ValidationError, "the body broke off before its end"))?;
            let Ok(data) = frame.into_data() else { continue };
            self.left = self.left.checked_sub(data.len() as u64).ok_or_else(|| self.too_large())?;
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let (Some(mut body), true) = (self.body.take(), self.sends) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let rest = async move {
            let mut taken = 0;
            while let Some(Ok(frame)) = body.frame().await {
                taken += frame.data_ref().map_or(0, Bytes::len);
                if taken > MAX_LINGER {
                    break;
                }
            }
        };
        runtime.spawn(tokio::time::timeout(LINGER, rest));
    }
}

impl Broken {
    /// What the client did wrong, where that is why its call failed.
    pub fn reason(&self) -> Option<ApiError> {
        self.0.get().cloned()
    }

    /// As the body of a request to a runtime; a fault ends it without its end.
    pub fn pass_on(&self, pieces: impl Pieces) -> RequestBody {
        let broken = self.clone();
        let frames = stream::unfold(Some(pieces), move |pieces| {
            let broken = broken.clone();
            async move {
                let mut pieces = pieces?;
                match pieces.next_piece().await {
                    Ok(Some(piece)) => Some((Ok(Frame::data(piece)), Some(pieces))),
                    Ok(None) => None,
                    Err(error) => {
                        let fault = std::io::Error::other(error.message.clone());
                        // The first fault is the one that counts.
                        let _later = broken.0.set(error);
                        Some((Err(fault), None))
                    }
                }
            }
        });
        StreamBody::new(frames.fuse()).boxed_unsync()
    }
}
