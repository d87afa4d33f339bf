//! How long a client may keep Bay waiting: the socket as hyper sees it, and what it tells of a connection.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Limits;
use super::connection::Place;

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI ";
/// Bodies of answers that are looked at: a connection has no more streams at once.
const MAX_WATCHED: usize = 256;

/// A moment, in milliseconds since the connection began; zero is none.
#[derive(Debug, Default)]
pub(super) struct Moment(AtomicU64);

impl Moment {
    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|ms| *ms != 0)
    }
}

/// What a connection is doing, told by its socket, its requests and its answers.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    /// Requests that are not answered to the end.
    active: AtomicUsize,
    /// When something last began or ended.
    moved: Moment,
    /// Since when a request's head is on its way.
    head: Moment,
    multiplexed: AtomicBool,
    read_anything: AtomicBool,
    /// Streamed answers: since when each waits for the client to take more.
    answers: Mutex<Vec<Weak<Moment>>>,
}

/// What is to become of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again by then.
    Wait(Instant),
    /// It has been without a request for long enough.
    Leave,
    /// The client does not do its part.
    Abandon(&'static str),
}

impl Progress {
    pub(super) fn new() -> Arc<Self> {
        let progress = Self {
            began: Instant::now(),
            active: AtomicUsize::new(0),
            moved: Moment::default(),
            head: Moment::default(),
            multiplexed: AtomicBool::new(false),
            read_anything: AtomicBool::new(false),
            answers: Mutex::new(Vec::new()),
        };
        progress.note(&progress.moved);
        Arc::new(progress)
    }

    fn now(&self) -> u64 {
        // One more, so that the beginning is a moment too.
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn note(&self, moment: &Moment) {
        moment.0.store(self.now(), Ordering::Relaxed);
    }

    /// A request has arrived.
    pub(super) fn begin(self: &Arc<Self>) -> Underway {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.head.clear();
        self.note(&self.moved);
        Underway(Arc::clone(self))
    }

    /// Watches a streamed answer.
    pub(super) fn watch(self: &Arc<Self>) -> Turn {
        let since = Arc::new(Moment::default());
        self.note(&since);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|answer| answer.strong_count() > 0);
        if answers.len() < MAX_WATCHED {
            answers.push(Arc::downgrade(&since));
        }
        Turn { progress: Arc::clone(self), since }
    }

    /// Bytes came from the client.
    fn read(&self, bytes: &[u8]) {
        if !self.read_anything.swap(true, Ordering::Relaxed) && bytes.starts_with(PREFACE) {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
        // On HTTP/2 much goes to and fro that is no request; there idleness is the bound.
        let begins_head = self.active.load(Ordering::Relaxed) == 0
            && !self.multiplexed.load(Ordering::Relaxed)
            && self.head.get().is_none();
        if begins_head {
            self.note(&self.head);
        }
    }

    pub(super) fn verdict(&self, limits: &Limits) -> Verdict {
        let now = self.now();
        let over = |since: Option<u64>, limit: Duration| {
            since.is_some_and(|since| u128::from(now.saturating_sub(since)) >= limit.as_millis())
        };
        if self.active.load(Ordering::Relaxed) == 0 {
            if over(self.head.get(), limits.head) {
                return Verdict::Abandon("a request's head did not arrive");
            }
            if over(self.moved.get(), limits.idle) {
                return Verdict::Leave;
            }
        }
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = answers.iter().filter_map(Weak::upgrade).any(|since| over(since.get(), limits.stall));
        if stalled {
            return Verdict::Abandon("an answer was not taken");
        }
        // A head that begins while this waits is seen at the next look, so that is never far away.
        Verdict::Wait(Instant::now() + limits.head.min(limits.stall).min(limits.idle))
    }
}

/// A request that is not answered to the end.
#[derive(Debug)]
pub(super) struct Underway(Arc<Progress>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.note(&self.0.moved);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whose turn it is with a streamed answer.
#[derive(Debug)]
pub(super) struct Turn {
    progress: Arc<Progress>,
    since: Arc<Moment>,
}

impl Turn {
    /// Something was handed on: the client is to take it.
    pub(super) fn of_client(&self) {
        self.progress.note(&self.since);
    }

    /// There is nothing to hand on.
    pub(super) fn of_bay(&self) {
        self.since.clear();
    }
}

/// A socket that tells [`Progress`] of what comes, and fails when the other side takes nothing for too long.
/// It holds the connection's place for as long as it is open, whoever has it after an upgrade.
pub(super) struct PatientIo<S> {
    socket: S,
    progress: Arc<Progress>,
    stall: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl<S: AsyncRead + AsyncWrite + Unpin> PatientIo<S> {
    pub(super) fn new(socket: S, progress: Arc<Progress>, stall: Duration, place: Place) -> Self {
        Self { socket, progress, stall, waiting: None, _place: place }
    }

    fn patient<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = write(Pin::new(&mut self.socket), context) {
            self.waiting = None;
            return Poll::Ready(done);
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.stall)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = ready!(Pin::new(&mut self.socket).poll_read(context, buffer));
        if let Some(fresh) = buffer.filled().get(before..).filter(|fresh| !fresh.is_empty()) {
            self.progress.read(fresh);
        }
        Poll::Ready(done)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PatientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.patient(context, |socket, context| socket.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.patient(context, |socket, context| socket.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.patient(context, |socket, context| socket.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.patient(context, |socket, context| socket.poll_shutdown(context))
    }
}
