//! One execution, shared by the work that fills it and those who read it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::registry::Ledger;
use super::ring::{Page, RING_BYTES, Ring};
use super::spool::{Kept, Source};
use crate::agent::error::{Code, Failure};
use crate::agent::sse;
use crate::files::pool::Pool;
use crate::text::{Utf8Pieces, rfc3339};

/// The most text in one event.
const PIECE: usize = 32 << 10;
/// Work waits for a reader that has this much before it, so that one that keeps up loses nothing …
const BEHIND: usize = RING_BYTES / 2;
/// … but not for one that reads nothing at all for this long: it loses some, and the work goes on.
const STALLED: Duration = Duration::from_secs(5);

/// What an execution takes in memory beside what it said.
const OVERHEAD: usize = 2048;

/// What Bay says of an execution when it asks for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    /// `exe_…`, minted by Bay.
    pub(crate) id: String,
    /// The number of the session, repeated in answers.
    pub(crate) session_seq: Option<u64>,
}

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn parse(name: &str) -> Result<Self, Failure> {
        match name {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            _ => Err(Failure::field("stream", "must be stdout or stderr")),
        }
    }

    /// As the contract writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How an execution ended: the answer, or the error body's failure.
pub(crate) type End = Result<Value, Failure>;

#[derive(Default)]
struct State {
    ring: Ring,
    kept: [Kept; 2],
    /// Beginnings of characters whose rest has not come yet.
    text: [Utf8Pieces; 2],
    end: Option<Arc<End>>,
    ended_at: Option<SystemTime>,
    readers: Vec<Position>,
    next_reader: u64,
}

/// How far a reader has come.
struct Position {
    key: u64,
    /// The last event it was given.
    seen: u64,
    /// It has read nothing for long: nobody waits for it until it does.
    stalled: bool,
}

/// See the module.
pub(crate) struct Execution {
    context: Context,
    capability: &'static str,
    /// Tells what it was asked to do from anything else.
    asked: [u8; 32],
    created_at: SystemTime,
    /// Bytes of each stream that are kept.
    limit: u64,
    pool: Pool,
    state: Mutex<State>,
    /// Counts events and readers' progress, so that whoever waits for either looks again.
    changed: watch::Sender<u64>,
    cancelled: watch::Sender<bool>,
    home: Weak<Mutex<Ledger>>,
}

impl Execution {
    pub(super) fn new(
        context: Context,
        capability: &'static str,
        asked: [u8; 32],
        limit: u64,
        pool: Pool,
        home: Weak<Mutex<Ledger>>,
    ) -> Self {
        Self {
            context,
            capability,
            asked,
            created_at: SystemTime::now(),
            limit,
            pool,
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            cancelled: watch::Sender::new(false),
            home,
        }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn asked(&self) -> [u8; 32] {
        self.asked
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, state: &mut State, name: &str, data: &impl Serialize) {
        let rendered = sse::event(name, Some(state.ring.next()), data);
        state.ring.push(rendered);
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Says that something comes before the work itself, for instance `queued`.
    pub(crate) fn status(&self, status: &str) {
        self.event(&mut self.state(), "status", &json!({"status": status}));
        self.wake();
    }

    /// The work begins; in which kernel, for Python.
    pub(crate) fn started(&self, kernel_seq: Option<u64>) {
        let mut data = json!({"execution_id": self.context.id, "session_seq": self.context.session_seq});
        if let Some(kernel_seq) = kernel_seq {
            data["kernel_seq"] = kernel_seq.into();
        }
        self.event(&mut self.state(), "start", &data);
        self.wake();
    }

    /// Takes output. Call [`Execution::settle`] before the next, which writes what does not stay in memory.
    pub(crate) fn output(&self, stream: Stream, bytes: &[u8]) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.kept[stream as usize].push(bytes, self.limit);
        let pieces = state.text[stream as usize].take(bytes, PIECE);
        let gone = pieces.len().saturating_sub(2 * RING_BYTES / PIECE);
        state.ring.skip(gone as u64);
        for piece in &pieces[gone..] {
            self.event(state, stream.name(), &json!({"text": piece}));
        }
        drop(guard);
        self.wake();
    }

    /// Some of what a stream said never arrived: what comes after it does not belong to what came before.
    pub(crate) fn lost(&self, stream: Stream) {
        self.state().kept[stream as usize].lose();
    }

    /// Shows a MIME bundle.
    pub(crate) fn display(&self, bundle: &Map<String, Value>) {
        self.event(&mut self.state(), "display", bundle);
        self.wake();
    }

    /// What was shown so far is to be taken back (IPython's `clear_output`).
    pub(crate) fn clear(&self) {
        self.event(&mut self.state(), "clear", &json!({}));
        self.wake();
    }

    /// Writes to the disk what has to go there, and waits for readers that keep up.
    pub(crate) async fn settle(&self) {
        self.write_out().await;
        self.let_readers_catch_up().await;
    }

    /// Writes to the disk what has to go there.
    pub(crate) async fn write_out(&self) {
        for index in [0, 1] {
            let Some(overflow) = self.state().kept[index].overflow() else { continue };
            let count = overflow.bytes.len();
            let written = self.pool.go_on(move || Ok(overflow.write()?)).await;
            let written = written.map_err(|failure| std::io::Error::other(failure.message));
            self.state().kept[index].written(count, written);
        }
    }

    async fn let_readers_catch_up(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            let behind = |state: &State| {
                state.readers.iter().any(|one| !one.stalled && state.ring.unread(one.seen) > BEHIND)
            };
            if !behind(&self.state()) || *self.cancelled.borrow() {
                return;
            }
            match timeout(STALLED, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    let mut guard = self.state();
                    let State { ring, readers, .. } = &mut *guard;
                    for one in readers.iter_mut().filter(|one| ring.unread(one.seen) > BEHIND) {
                        one.stalled = true;
                    }
                }
            }
        }
    }

    /// The end: whoever waits is told, and nothing comes after. A second end is ignored.
    pub(crate) fn finish(&self, end: End) {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.end.is_some() {
            return;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(rest) = state.text[stream as usize].finish() {
                self.event(state, stream.name(), &json!({"text": rest}));
            }
        }
        let number = Some(state.ring.next());
        let rendered = match &end {
            Ok(result) => sse::event("result", number, result),
            Err(failure) => sse::event("error", number, &failure.body().1),
        };
        // The end is kept twice: to be sent as an event, and to be answered with.
        let kept = &state.kept;
        let memory =
            OVERHEAD + state.ring.bytes() + 2 * rendered.len() + kept.iter().map(Kept::memory).sum::<usize>();
        let disk = kept.iter().map(Kept::on_disk).sum();
        state.ring.push_last(rendered);
        state.end = Some(Arc::new(end));
        state.ended_at = Some(SystemTime::now());
        drop(guard);
        self.wake();
        if let Some(ledger) = self.home.upgrade() {
            ledger.lock().unwrap_or_else(PoisonError::into_inner).ended(self, (memory, disk));
        }
    }

    /// Waits for the end.
    pub(crate) async fn end(&self) -> Arc<End> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(end) = &self.state().end {
                return Arc::clone(end);
            }
            if changed.changed().await.is_err() {
                return Arc::new(Err(Failure::new(Code::RuntimeError, "the container is ending")));
            }
        }
    }

    /// Asks the work to stop; it ends by itself, soon.
    pub(crate) fn cancel(&self) {
        self.cancelled.send_replace(true);
        self.wake();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }

    /// Returns once somebody has asked the work to stop.
    pub(crate) async fn cancellation(&self) {
        let mut cancelled = self.cancelled.subscribe();
        // The sender lives in `self`, so this ends only with a true value.
        let _ = cancelled.wait_for(|cancelled| *cancelled).await;
    }

    /// The record, for a client that asks later.
    pub(crate) fn record(&self) -> Value {
        let state = self.state();
        let [stdout, stderr] = &state.kept;
        let sizes = |kept: &Kept| json!({"bytes": kept.sizes().0, "kept": kept.sizes().1});
        let (status, result, error) = match state.end.as_deref() {
            None => ("running", Value::Null, Value::Null),
            Some(Err(failure)) => ("error", Value::Null, json!(failure.body().1.error)),
            Some(Ok(result)) if result["success"] == true => ("succeeded", result.clone(), Value::Null),
            Some(Ok(result)) => ("failed", result.clone(), Value::Null),
        };
        json!({
            "execution_id": self.context.id, "session_seq": self.context.session_seq,
            "capability": self.capability, "status": status, "result": result, "error": error,
            "stdout": sizes(stdout), "stderr": sizes(stderr), "last_event_id": state.ring.next() - 1,
            "created_at": rfc3339(self.created_at), "ended_at": state.ended_at.map(rfc3339),
        })
    }

    /// The first bytes of a stream, as many as an answer carries, and whether there were more.
    pub(crate) fn inline(&self, stream: Stream) -> (String, bool) {
        let state = self.state();
        let kept = &state.kept[stream as usize];
        crate::text::prefix(kept.head(), kept.sizes().0)
    }

    /// How many bytes of a stream there are to be read, and how many there have been.
    pub(crate) fn sizes(&self, stream: Stream) -> (u64, u64) {
        let (total, kept) = self.state().kept[stream as usize].sizes();
        (kept, total)
    }

    /// Bytes of a stream from `offset` on, at most `most`; none at the end of what is kept.
    pub(crate) async fn read(&self, stream: Stream, offset: u64, most: usize) -> Result<Vec<u8>, Failure> {
        let source = self.state().kept[stream as usize].at(offset, most);
        match source {
            Source::Memory(bytes) => Ok(bytes),
            Source::Nothing => Ok(Vec::new()),
            Source::File { file, at, count } => {
                self.pool.go_on(move || Ok(super::spool::read(&file, at, count)?)).await
            }
        }
    }

    /// Registers a reader that has seen everything up to event `seen`; it is one as long as the value lives.
    pub(super) fn reader(self: &Arc<Self>, seen: u64) -> Reader {
        let mut state = self.state();
        let key = state.next_reader;
        state.next_reader += 1;
        state.readers.push(Position { key, seen, stalled: false });
        drop(state);
        Reader { execution: Arc::clone(self), key, changed: self.changed.subscribe() }
    }
}

/// Somebody who reads the events.
pub(super) struct Reader {
    execution: Arc<Execution>,
    key: u64,
    changed: watch::Receiver<u64>,
}

impl Reader {
    /// The next events after `seen`, and whether the last of them is the terminal one. Empty: none yet.
    pub(super) fn next(&mut self, seen: u64, most: usize) -> (Page, bool) {
        // Before looking, so that nothing that comes meanwhile is slept through.
        self.changed.borrow_and_update();
        let state = self.execution.state();
        let page = state.ring.after(seen, most);
        let over = state.end.is_some() && page.last + 1 == state.ring.next();
        drop(state);
        (page, over)
    }

    /// Tells the work that this reader was given everything up to `seen`.
    pub(super) fn progressed(&self, seen: u64) {
        let mut state = self.execution.state();
        if let Some(mine) = state.readers.iter_mut().find(|one| one.key == self.key) {
            (mine.seen, mine.stalled) = (seen, false);
        }
        drop(state);
        self.execution.wake();
    }

    /// Waits until there may be something new.
    pub(super) async fn changed(&mut self) {
        let _ = self.changed.changed().await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.execution.state().readers.retain(|one| one.key != self.key);
        self.execution.wake();
    }
}

/// A rendered event that is no part of the ring.
pub(super) fn gap(first: u64, last: u64) -> Bytes {
    sse::event("gap", None, &json!({"first_lost": first, "last_lost": last, "lost": last - first + 1}))
}
