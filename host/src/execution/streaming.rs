//! A call whose client reads its events while they come.
//!
//! ```text
//! status* ──▶ start ──▶ stdout | stderr | display | … ──▶ result | error
//!   Bay         └───────── the runtime, past a tap ──┘       Bay, once the end is recorded
//! ```
//!
//! The terminal event is what the record says, and only where the runtime's own stream came to an end: one that breaks
//! has none, and breaks the client's as well.

use std::time::Duration;

use bay_plugin_host::FaultKind;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::admit::Routed;
use super::dispatch::{self, Client};
use super::events::{comment, event};
use super::work::Work;
use super::{Recorded, Stage};
use crate::error::{ApiError, ApiResult, Code, fault_code};
use crate::runtime::{CallerRequest, Forwarded, Tap};
use crate::session::Lease;
use crate::streams::StreamGuard;

/// Pieces between us and the client.
const PIECES: usize = 8;
/// How long a client may take nothing before it counts as gone.
const STALL: Duration = Duration::from_secs(60);
/// Longest message of a runtime's error that a client sees.
const MAX_MESSAGE: usize = 8 << 10;
/// How often it is looked how far a start has come.
const LOOK: Duration = Duration::from_millis(500);
/// How often a quiet stream says something: proxies end what says nothing.
const KEEP_AWAKE: Duration = Duration::from_secs(15);

/// A body of events.
pub(crate) type Events = mpsc::Receiver<Result<Bytes, std::io::Error>>;

/// The client's end of a stream.
pub(crate) struct Listener {
    out: mpsc::Sender<Result<Bytes, std::io::Error>>,
    /// The work is not to go on without its reader.
    interrupt: bool,
    /// Told once whether there are events at all, where the client's answer waits for that.
    opened: Option<oneshot::Sender<ApiResult<()>>>,
    /// The tenant's place for a stream, as long as there is somebody to send to.
    place: Option<StreamGuard>,
}

/// How far the runtime's own stream came.
#[derive(Default)]
struct Relayed {
    forwarded: bool,
    terminal: Option<u64>,
    /// What the runtime's own terminal event says, where it is an error.
    refusal: Option<ApiError>,
}

impl Listener {
    /// Of an execution's own client. The second is what it reads.
    pub(crate) fn of(routed: &Routed, place: StreamGuard) -> (Self, Events) {
        let (out, events) = mpsc::channel(PIECES);
        let interrupt = routed.admitted.input["on_disconnect"] != "continue";
        (Self { out, interrupt, opened: None, place: Some(place) }, events)
    }

    /// Of another, whose going means nothing. `opened` is told whether there is something to read.
    pub(crate) fn beside(opened: oneshot::Sender<ApiResult<()>>, place: StreamGuard) -> (Self, Events) {
        let (out, events) = mpsc::channel(PIECES);
        (Self { out, interrupt: false, opened: Some(opened), place: Some(place) }, events)
    }

    /// False once the client is gone, or takes nothing for too long.
    async fn send(&self, piece: Bytes) -> bool {
        self.out.send_timeout(Ok(piece), STALL).await.is_ok()
    }

    /// Passes on what the runtime says, as long as somebody listens.
    async fn relay(&mut self, forwarded: oneshot::Receiver<Forwarded>) -> Relayed {
        let Ok(mut stream) = forwarded.await else { return Relayed::default() };
        if let Some(opened) = self.opened.take() {
            let _gone = opened.send(Ok(()));
        }
        let mut tap = Tap::default();
        loop {
            let piece = tokio::select! {
                piece = stream.body.recv() => piece,
                () = self.out.closed() => break,
            };
            let Some(Ok(piece)) = piece else { break };
            // A stream that cannot be read is one that broke.
            let Ok(piece) = tap.push(&piece) else { break };
            if !piece.is_empty() && !self.send(piece).await {
                break;
            }
        }
        if self.out.is_closed() {
            self.place = None;
        }
        Relayed { forwarded: true, terminal: tap.terminal(), refusal: tap.refusal().and_then(refusal) }
    }

    /// Says the end.
    async fn end(mut self, relayed: &Relayed, finished: ApiResult<Value>, request_id: &str) {
        if let Some(opened) = self.opened.take() {
            let _gone = opened.send(finished.map(drop));
            return;
        }
        let last = match (relayed.forwarded, relayed.terminal) {
            (true, Some(id)) => id,
            (true, None) => {
                let broke = std::io::Error::other("the runtime's events broke off");
                let _gone = self.out.send_timeout(Err(broke), STALL).await;
                return;
            }
            // An adapter that streams nothing: its execution has a beginning all the same.
            (false, _) => match &finished {
                Ok(value) => {
                    let fields = ["execution_id", "session_seq", "kernel_seq"];
                    let start: Value = fields
                        .iter()
                        .filter_map(|f| Some(((*f).to_owned(), value.get(f)?.clone())))
                        .collect::<serde_json::Map<_, _>>()
                        .into();
                    self.send(event("start", 1, &start)).await;
                    2
                }
                Err(_) => 1,
            },
        };
        let end = match finished {
            Ok(value) => event("result", last, &value),
            Err(error) => event("error", last, &error.body(request_id, false)),
        };
        self.send(end).await;
    }
}

impl Work {
    /// To the end, for a client that reads events.
    pub(crate) async fn stream(
        self,
        routed: Routed,
        recorded: Recorded,
        caller: CallerRequest,
        mut listener: Listener,
    ) {
        let mut relayed = Relayed::default();
        let outcome = match self.starting(&routed, &recorded, &listener).await {
            Err(error) => Err(error),
            Ok(lease) => {
                let (forward, forwarded) = oneshot::channel();
                let streams = routed.admitted.spec().is_ok_and(|op| op.spec.streams);
                let client = Client { caller, forward, events: streams };
                let adapt = dispatch::adapt(&self.context, &routed, &recorded, &lease, client);
                let (reply, came) = tokio::join!(adapt, listener.relay(forwarded));
                self.stages.done(Stage::Adapt);
                relayed = came;
                match (reply, relayed.refusal.take()) {
                    // Of what it refused before it began a runtime need not know anything when asked.
                    (Err(error), Some(refusal)) if error.code == Code::NotFound => Err(refusal),
                    (reply, _) => reply.map(|value| (lease.live.seq, value)),
                }
            }
        };
        let finished = self.finish(&routed, &recorded, outcome).await;
        listener.end(&relayed, finished, &self.context.request_id).await;
    }

    /// Has a session, and says meanwhile how far it is.
    async fn starting(&self, routed: &Routed, recorded: &Recorded, listener: &Listener) -> ApiResult<Lease> {
        let mut lease = std::pin::pin!(self.lease(routed, recorded));
        let sandbox = &routed.admitted.sandbox;
        let mut said = None;
        let mut spoke = Instant::now();
        let is_ready = self.at.is_some() || self.app.sessions.ready(&sandbox.id).is_some();
        if !is_ready {
            let status = json!({ "status": "starting", "detail": null });
            listener.send(event("status", 0, &status)).await;
        }
        loop {
            tokio::select! {
                biased;
                lease = &mut lease => return lease,
                () = listener.out.closed(), if listener.interrupt => return Err(left()),
                () = tokio::time::sleep(LOOK) => {}
            }
            let images = routed.admitted.profile.containers.iter().filter_map(|c| c.image.as_deref());
            let progress = images.filter_map(|i| self.app.driver.fetching(i)).map(|p| p.message).next();
            // A client that does not read yet is told later, or not at all: the start does not wait for it.
            if progress.is_some() && progress != said {
                let status = json!({ "status": "pulling_image", "detail": progress });
                let _full = listener.out.try_send(Ok(event("status", 0, &status)));
                said = progress;
                spoke = Instant::now();
            } else if spoke.elapsed() >= KEEP_AWAKE {
                let _full = listener.out.try_send(Ok(comment()));
                spoke = Instant::now();
            }
        }
    }
}

/// An `error` of the runtime's, in the words of the contract.
fn refusal(said: &[u8]) -> Option<ApiError> {
    let said: Value = serde_json::from_slice(said).ok()?;
    let kind = FaultKind::from_word(said["error"]["code"].as_str()?).unwrap_or(FaultKind::Runtime);
    let mut message = said["error"]["message"].as_str().unwrap_or("refused").to_owned();
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    let details = said["error"]["details"].clone();
    let error = ApiError::new(fault_code(kind), message);
    Some(if details.is_object() { error.with(details) } else { error })
}

fn left() -> ApiError {
    ApiError::new(Code::Conflict, "its reader went away before it began; nothing ran")
}
