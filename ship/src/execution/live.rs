//! One execution, shared by the work that fills it and those who read it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bay_ship_api::http::MAX_INLINE_OUTPUT;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::registry::Ledger;
use super::ring::{Page, RING_BYTES, Ring};
use super::spool::{Budget, Kept, Source};
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

/// The longest that one stream's text may be in an answer's JSON, where a control character takes six bytes: what is
/// mostly text is cut by its own bound only, and an answer stays within what Bay takes.
pub(crate) const MAX_INLINE_JSON: usize = 2 * MAX_INLINE_OUTPUT;
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

/// How an execution ended: with its answer, or with the failure that an error body says.
pub(crate) type End = Result<Answer, Failure>;

/// An answer, rendered once for all who get it.
pub(crate) struct Answer {
    pub(crate) json: Box<RawValue>,
    success: bool,
}

struct State {
    ring: Ring,
    kept: [Kept; 2],
    /// The work has begun.
    started: bool,
    /// Beginnings of characters whose rest has not come yet.
    text: [Utf8Pieces; 2],
    end: Option<Arc<End>>,
    ended_at: Option<SystemTime>,
    /// Callers that wait for the end.
    waiting: usize,
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
        (pool, budget): (Pool, &Arc<Budget>),
        home: Weak<Mutex<Ledger>>,
    ) -> Self {
        let state = State {
            ring: Ring::default(),
            kept: [Kept::new(Arc::clone(budget)), Kept::new(Arc::clone(budget))],
            started: false,
            text: Default::default(),
            end: None,
            ended_at: None,
            waiting: 0,
            readers: Vec::new(),
            next_reader: 0,
        };
        Self {
            context,
            capability,
            asked,
            created_at: SystemTime::now(),
            limit,
            pool,
            state: Mutex::new(state),
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
        let mut state = self.state();
        state.started = true;
        self.event(&mut state, "start", &data);
        drop(state);
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
    pub(crate) async fn settle(self: &Arc<Self>) {
        self.write_out().await;
        self.let_readers_catch_up().await;
    }

    /// Writes to the disk what has to go there. Whoever stops waiting loses nothing: a write under way counts when it
    /// is done, and what had not begun is for the next call.
    pub(crate) async fn write_out(self: &Arc<Self>) {
        for index in [0, 1] {
            if !self.state().kept[index].is_unsettled() {
                continue;
            }
            let this = Arc::clone(self);
            // The pool of executions has one thread, so that writes come one after the other.
            let queued = self.pool.go_on(move || {
                let overflow = this.state().kept[index].overflow();
                if let Some((at, bytes, file)) = overflow {
                    let written = super::spool::write(file, at, &bytes);
                    this.state().kept[index].written(bytes.len(), written);
                }
                Ok(())
            });
            // Fails only with the thread, and then the container ends.
            let _ = queued.await;
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

    /// The end: whoever waits is told, and nothing comes after. A second end is ignored. What failed before it began
    /// may be asked for again under the same id.
    pub(crate) fn finish(&self, end: Result<Value, Failure>) {
        let end = end.and_then(|value| {
            let success = value["success"] == true;
            let rendered = serde_json::value::to_raw_value(&value);
            let json = rendered.map_err(|error| Failure::new(Code::RuntimeError, error.to_string()))?;
            Ok(Answer { json, success })
        });
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
        let kept = &state.kept;
        let answer = end.as_ref().map_or(0, |answer| answer.json.get().len());
        let memory = OVERHEAD + state.ring.bytes() + answer + kept.iter().map(Kept::memory).sum::<usize>();
        let disk = kept.iter().map(Kept::on_disk).sum();
        let never_began = end.is_err() && !state.started;
        state.end = Some(Arc::new(end));
        state.ended_at = Some(SystemTime::now());
        drop(guard);
        self.wake();
        if let Some(ledger) = self.home.upgrade() {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            if never_began { ledger.withdraw(self) } else { ledger.ended(self, (memory, disk)) }
        }
    }

    /// Whether somebody waits for its end or reads its events: they get what it really came to.
    pub(super) fn is_in_use(&self) -> bool {
        let state = self.state();
        state.waiting > 0 || !state.readers.is_empty()
    }

    /// Lets go of all that takes room: what stays is that it ran.
    pub(super) fn lighten(&self) {
        let mut state = self.state();
        state.ring.forget();
        state.kept.iter_mut().for_each(Kept::forget);
        let words = "this execution has ended, and its result is not kept any more";
        state.end = Some(Arc::new(Err(Failure::new(Code::Conflict, words))));
    }

    /// Waits for the end.
    pub(crate) async fn end(&self) -> Arc<End> {
        let _waits = Waits::new(self);
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
    pub(crate) fn record(&self) -> impl Serialize + use<> {
        #[derive(Serialize)]
        struct Record {
            #[serde(flatten)]
            facts: Value,
            result: Option<Value>,
        }
        let state = self.state();
        let [stdout, stderr] = &state.kept;
        let sizes = |kept: &Kept| json!({"bytes": kept.sizes().0, "kept": kept.sizes().1});
        let end = state.end.clone();
        let (status, error) = match end.as_deref() {
            None => ("running", Value::Null),
            Some(Err(failure)) => ("error", json!(failure.body().1.error)),
            Some(Ok(Answer { success: true, .. })) => ("succeeded", Value::Null),
            Some(Ok(Answer { success: false, .. })) => ("failed", Value::Null),
        };
        let facts = json!({
            "execution_id": self.context.id, "session_seq": self.context.session_seq,
            "capability": self.capability, "status": status, "error": error,
            "stdout": sizes(stdout), "stderr": sizes(stderr),
            "last_event_id": state.ring.next() - u64::from(end.is_none()),
            "created_at": rfc3339(self.created_at), "ended_at": state.ended_at.map(rfc3339),
        });
        drop(state);
        // What was rendered is JSON.
        let result = end.as_deref().and_then(|end| serde_json::from_str(end.as_ref().ok()?.json.get()).ok());
        Record { facts, result }
    }

    /// The first bytes of a stream, as many as an answer carries, and whether there were more.
    pub(crate) fn inline(&self, stream: Stream) -> (String, bool) {
        let state = self.state();
        let kept = &state.kept[stream as usize];
        crate::text::prefix(kept.head(), kept.sizes().0, MAX_INLINE_JSON)
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

/// A caller that waits for the end.
struct Waits<'e>(&'e Execution);

impl<'e> Waits<'e> {
    fn new(execution: &'e Execution) -> Self {
        execution.state().waiting += 1;
        Self(execution)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
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
        let mut page = state.ring.after(seen, most);
        let terminal = state.ring.next();
        let Some(end) = state.end.clone() else { return (page, false) };
        drop(state);
        if page.last + 1 < terminal {
            return (page, false);
        }
        if seen < terminal {
            page.events.push(match end.as_ref() {
                Ok(answer) => sse::event("result", Some(terminal), &answer.json),
                Err(failure) => sse::event("error", Some(terminal), &failure.body().1),
            });
        }
        page.last = terminal;
        (page, true)
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
