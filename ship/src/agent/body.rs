//! Answer bodies: a JSON text, a file that is read while it is sent, a stream of what comes into being.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use crate::agent::error::Failure;
use crate::files::Opened;
use crate::files::pool::{Disposed, Pool};

/// Read and sent at once.
const CHUNK: usize = 128 << 10;

type Reading = Pin<Box<dyn Future<Output = Result<BytesMut, Failure>> + Send>>;

/// The body of an answer.
pub(super) enum Body {
    /// Whole in memory; taken when sent.
    Whole(Option<Bytes>),
    /// A range of a file.
    File(FileRange),
    /// What somebody sends while it comes into being, of unknown length. An error breaks the connection, so that
    /// what did not end well never looks whole.
    Stream(mpsc::Receiver<Result<Bytes, Cut>>),
}

/// Bytes of a file still to be sent.
pub(super) struct FileRange {
    file: Arc<Disposed<Opened>>,
    pool: Pool,
    offset: u64,
    left: u64,
    reading: Option<Reading>,
    /// Used again once a piece is sent.
    buffer: BytesMut,
}

impl FileRange {
    pub(super) fn new(file: Arc<Disposed<Opened>>, pool: Pool, offset: u64, length: u64) -> Self {
        Self { file, pool, offset, left: length, reading: None, buffer: BytesMut::new() }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let reading = match &mut self.reading {
            Some(reading) => reading,
            None => {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK);
                let mut buffer = std::mem::take(&mut self.buffer);
                buffer.resize(most, 0);
                // What the kernel has in memory is read here and now; for the rest a thread waits, for one piece
                // only: a slow reader holds none.
                let cached = self.file.get().map_or(0, |file| file.read_cached(self.offset, &mut buffer));
                if cached > 0 {
                    buffer.truncate(cached);
                    return Poll::Ready(Some(Ok(self.sent(buffer))));
                }
                let (file, pool, offset) = (Arc::clone(&self.file), self.pool.clone(), self.offset);
                self.reading.insert(Box::pin(async move {
                    let read = move || {
                        let have = file.get()?.read_at(offset, &mut buffer)?;
                        buffer.truncate(have);
                        Ok(buffer)
                    };
                    pool.go_on(read).await
                }))
            }
        };
        let read = match reading.as_mut().poll(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(read) => read,
        };
        self.reading = None;
        Poll::Ready(Some(match read {
            // A file that became shorter: the promised length cannot be kept, so the connection must break.
            Ok(bytes) if bytes.is_empty() => Err(Cut),
            Ok(bytes) => Ok(self.sent(bytes)),
            Err(_) => Err(Cut),
        }))
    }

    /// The next piece, as it goes out.
    fn sent(&mut self, mut bytes: BytesMut) -> Frame<Bytes> {
        self.offset += bytes.len() as u64;
        self.left -= bytes.len() as u64;
        let piece = bytes.split().freeze();
        self.buffer = bytes;
        Frame::data(piece)
    }
}

/// The body ended before its promised length.
#[derive(Debug)]
pub(crate) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body could not be sent to its end")
    }
}

impl std::error::Error for Cut {}

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::File(range) => range.poll(context),
            Self::Stream(pieces) => pieces.poll_recv(context).map(|piece| Some(piece?.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::File(range) => range.left == 0,
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::File(range) => SizeHint::with_exact(range.left),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
