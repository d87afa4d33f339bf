//! Executions: how one is answered while and after it runs.

use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::http::{StillRunning, Waiting};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::agent::Ship;
use crate::agent::body::{Body, Cut};
use crate::agent::error::{Code, Failure};
use crate::agent::http::{Answer, Query, json_response, ok};
use crate::agent::range::Range;
use crate::agent::sse;
use crate::execution::{Begun, Context, Execution, Stream, stream};

/// Bay's name for the execution; repeated in the answer.
const EXECUTION_ID: HeaderName = HeaderName::from_static("x-execution-id");
/// The number of Bay's session.
const SESSION_SEQ: HeaderName = HeaderName::from_static("x-session-seq");
/// All bytes that a stream has ever said, of which the answer may carry fewer.
const OUTPUT_TOTAL: HeaderName = HeaderName::from_static("x-output-total");
/// The event that a client has seen last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Longest wait that a request may ask for, in seconds.
const MAX_WAIT: u32 = 3700;
/// Bytes of output read at once.
const PIECE: usize = 128 << 10;

/// How a request wants its answer.
pub(in crate::agent) struct Wanted {
    context: Context,
    events: bool,
    wait: Option<Duration>,
    interrupt: bool,
}

impl Wanted {
    /// What the head of a request says; [`Wanted::waiting`] adds what its body says.
    pub(in crate::agent) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
        let session_seq = text(SESSION_SEQ).map(str::parse).transpose();
        let session_seq = session_seq.map_err(|_| Failure::field("X-Session-Seq", "must be a number"))?;
        let id = text(EXECUTION_ID).unwrap_or_default().to_owned();
        let events = text(header::ACCEPT).is_some_and(|accept| accept.contains(sse::CONTENT_TYPE));
        let context = Context { id, session_seq };
        Ok(Self { context, events, wait: None, interrupt: events })
    }

    /// Whether this request repeats one: then nothing is checked again that may have changed since.
    pub(in crate::agent) fn is_repeated(&self, ship: &Ship) -> bool {
        ship.executions.knows(&self.context.id)
    }

    pub(in crate::agent) fn waiting(mut self, waiting: &Waiting) -> Result<Self, Failure> {
        if waiting.wait.is_some_and(|wait| wait > MAX_WAIT) {
            return Err(Failure::field("wait", format!("must be at most {MAX_WAIT} seconds")));
        }
        self.wait = waiting.wait.map(|seconds| Duration::from_secs(seconds.into()));
        self.interrupt = match waiting.on_disconnect.as_deref() {
            None => self.events,
            Some("interrupt") => true,
            Some("continue") => false,
            Some(_) => return Err(Failure::field("on_disconnect", "must be interrupt or continue")),
        };
        Ok(self)
    }

    /// Begins the execution that `request` asks for with `work`, unless it is known already, and answers as wanted.
    pub(in crate::agent) async fn run<T: Serialize>(
        self,
        ship: &Ship,
        capability: &'static str,
        request: &T,
        work: impl FnOnce(&Arc<Execution>) -> Result<(), Failure>,
    ) -> Answer {
        let asked = fingerprint(capability, request);
        let (execution, new) = match ship.executions.begin(self.context, capability, asked)? {
            Begun::Known(execution) => (execution, false),
            Begun::New(execution) => {
                if let Err(refused) = work(&execution) {
                    // Nothing happened: the same id may be tried again.
                    execution.finish(Err(refused.clone()));
                    return Err(refused);
                }
                (execution, true)
            }
        };
        // Whoever repeats a request follows; whether its work goes on is up to who asked first.
        let gone = Gone { execution: Arc::clone(&execution), interrupt: self.interrupt && new };
        if self.events {
            return Ok(named(&execution, events(&execution, 0, gone)));
        }
        let end = match self.wait {
            None => execution.end().await,
            Some(wait) => match timeout(wait, execution.end()).await {
                Ok(end) => end,
                Err(_) => {
                    gone.stays();
                    let execution_id = execution.context().id.clone();
                    let running = StillRunning { execution_id, status: "running".to_owned() };
                    return Ok(named(&execution, json_response(StatusCode::ACCEPTED, &running)));
                }
            },
        };
        gone.stays();
        match end.as_ref() {
            Ok(answer) => Ok(named(&execution, json_response(StatusCode::OK, &answer.json))),
            Err(failure) => Err(failure.clone()),
        }
    }
}

/// Tells one request from another, whatever they say about waiting.
fn fingerprint<T: Serialize>(capability: &str, request: &T) -> [u8; 32] {
    // Our own types always serialise, with their fields in one order.
    let mut value = serde_json::to_value(request).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| name != "wait" && name != "on_disconnect");
    }
    Sha256::digest(format!("{capability} {value}")).into()
}

/// Held by whoever answers a caller. Dropped before the end it means that the caller went away: the work is stopped
/// where that was asked for. After the end it means nothing.
struct Gone {
    execution: Arc<Execution>,
    interrupt: bool,
}

impl Gone {
    /// The caller has its answer.
    fn stays(mut self) {
        self.interrupt = false;
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        if self.interrupt {
            self.execution.cancel();
        }
    }
}

fn named(execution: &Execution, mut response: Response<Body>) -> Response<Body> {
    let id = HeaderValue::from_str(&execution.context().id);
    response.headers_mut().extend(id.ok().map(|id| (EXECUTION_ID, id)));
    response
}

fn events(execution: &Arc<Execution>, seen: u64, held: impl Send + 'static) -> Response<Body> {
    sse::response(stream(execution, seen, held))
}

/// `GET /executions/{id}?wait=`
pub(in crate::agent) async fn get(ship: &Ship, request: Request<Incoming>, id: &str) -> Answer {
    let execution = ship.executions.get(id)?;
    if let Some(seconds) = Query::of(&request)?.number::<u32>("wait")? {
        // Whether it ended in time is what the record says.
        let _ = timeout(Duration::from_secs(seconds.min(MAX_WAIT).into()), execution.end()).await;
    }
    ok(&execution.record())
}

/// `GET /executions/{id}/events`
pub(in crate::agent) async fn resume(ship: &Ship, request: Request<Incoming>, id: &str) -> Answer {
    let execution = ship.executions.get(id)?;
    let seen = request.headers().get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?").parse::<u64>());
    let seen = seen.transpose().map_err(|_| Failure::field("Last-Event-ID", "must be an event's id"))?;
    Ok(named(&execution, events(&execution, seen.unwrap_or(0), ())))
}

/// `POST /executions/{id}/cancel`
pub(in crate::agent) async fn cancel(ship: &Ship, id: &str) -> Answer {
    let execution = ship.executions.get(id)?;
    execution.cancel();
    ok(&json!({"status": "ok", "execution": execution.record()}))
}

/// `GET /executions/{id}/output?stream=stdout&offset=`, with `Range`
pub(in crate::agent) async fn output(ship: &Ship, request: Request<Incoming>, id: &str) -> Answer {
    let execution = ship.executions.get(id)?;
    let query = Query::of(&request)?;
    let which = Stream::parse(query.text("stream").unwrap_or("stdout"))?;
    let (kept, total) = execution.sizes(which);
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, from, until) = match range.map(|range| Range::parse(range, kept)) {
        None | Some(Range::Whole) => {
            (StatusCode::OK, query.number::<u64>("offset")?.unwrap_or(0).min(kept), kept)
        }
        Some(Range::Part(from, length)) => (StatusCode::PARTIAL_CONTENT, from, from + length),
        Some(Range::Outside) => {
            let mut failure = Failure::new(Code::RangeNotSatisfiable, "the range lies outside what is kept");
            failure.details = json!({"size": kept});
            return Err(failure);
        }
    };
    let mut response = Response::new(Body::Stream(pieces(Arc::clone(&execution), which, from, until)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, (until - from).into());
    headers.insert(OUTPUT_TOTAL, total.into());
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {from}-{}/{kept}", until - 1);
        headers.extend(HeaderValue::from_str(&value).ok().map(|value| (header::CONTENT_RANGE, value)));
    }
    Ok(named(&execution, response))
}

/// Reads the output while it is sent.
fn pieces(
    execution: Arc<Execution>,
    which: Stream,
    from: u64,
    until: u64,
) -> mpsc::Receiver<Result<Bytes, Cut>> {
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut from = from;
        while from < until {
            let most = usize::try_from(until - from).unwrap_or(usize::MAX).min(PIECE);
            let piece = match execution.read(which, from, most).await {
                Ok(bytes) if !bytes.is_empty() => Ok(Bytes::from(bytes)),
                // The promised length cannot be kept, so the connection must break.
                Ok(_) | Err(_) => Err(Cut),
            };
            from += piece.as_ref().map_or(0, |piece| piece.len() as u64);
            let broken = piece.is_err();
            if send.send(piece).await.is_err() || broken {
                return;
            }
        }
    });
    receive
}
