//! An adapter's operation: the guest plans, the host acts, until the guest replies or a bound is met.
//!
//! ```text
//!           ┌──────── resume(event) ────────┐
//! start ─▶ action ─▶ requests ─ performed ──┤
//!            │  ├───▶ forward ─ streamed ───┤   once, and only where the manifest says so
//!            │  ├───▶ sleep ─── woke ───────┘   never past the deadline
//!            │  ├───▶ reply ─▶ Outcome::Reply
//!            │  └───▶ fail ──▶ Outcome::Fail
//!            └─ max_steps ───▶ PluginFault::Steps
//! ```
//!
//! Who is to blame: a guest that computes or sleeps past the deadline failed (`PluginFault::Deadline`); a runtime
//! that did not answer by then failed the call (`FaultKind::Timeout`), and the guest is not asked again.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::{Instant, timeout_at};

use crate::abi::v0_1::adapter::{
    Action, Event, Instance, Operation, RequestFailure, lift_action, lower_event,
};
use crate::guest::Place;
use crate::plan::Grants;
use crate::{
    Fault, FaultKind, ForwardEnd, Limits, OperationSpec, Outcome, PlannedRequest, PlannedResponse,
    PluginFault, json,
};

/// Longest text about a failed request that a guest is given.
const MAX_FAILURE: usize = 1024;
/// Most headers of a response that a guest is given.
const MAX_HEADERS: usize = 64;
/// How far past the deadline a guest may still make an answer of what came back just in time.
const GRACE: Duration = Duration::from_millis(250);
/// Most of a refused `forward` that a guest is given.
const MAX_REFUSAL: usize = 64 << 10;

/// Performs what an adapter plans, over pooled connections to the runtime of one container.
///
/// An implementation bounds what it reads by [`Limits::max_response_bytes`]. Futures may be dropped at any point:
/// that is how a deadline reaches them.
#[async_trait]
pub trait Performer: Send + Sync {
    /// Sends a request and reads the whole answer. The error is for the plugin and the log; `timeout` where the
    /// request's own time was up.
    async fn request(&self, request: PlannedRequest) -> Result<PlannedResponse, String>;
    /// Streams the request's own body, or else the caller's, to the runtime and the runtime's body to the caller, past
    /// the guest. An answer
    /// that is neither 2xx nor 304 is not streamed: it comes back in [`ForwardEnd::refusal`].
    async fn forward(&self, request: PlannedRequest) -> Result<ForwardEnd, String>;
}

/// What bounds one run.
pub(crate) struct Bounds<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) grants: &'a Grants,
    pub(crate) spec: &'a OperationSpec,
    pub(crate) deadline: Instant,
}

/// What performing an action came to.
enum Performed {
    Event(Event),
    /// The runtime did not answer by the deadline.
    TooLate,
}

/// Runs one operation to its end.
pub(crate) async fn run(
    place: &mut Place,
    instance: Instance,
    call: &crate::Call,
    config: &str,
    performer: &dyn Performer,
    bounds: &Bounds<'_>,
) -> Result<Outcome, PluginFault> {
    let lowered = crate::abi::v0_1::adapter::lower_call(call, config);
    let started = place
        .run(bounds.limits.step_timeout, Some(bounds.deadline + GRACE), |store| {
            instance.start(store, &lowered)
        })
        .await?;
    let (operation, first) = started.map_err(|e| place.fault(&e))?;
    drop(lowered);
    let mut action = lift_action(first)?;
    let mut forwarded = false;
    for _ in 0..bounds.limits.max_steps {
        let performed = match action {
            Action::Reply(text) => return reply(&text, bounds),
            Action::Fail(fault) => return Ok(Outcome::Fail(fault)),
            Action::Sleep(ms) => sleep(ms, bounds.deadline).await?,
            Action::Requests(all) => requests(all, performer, bounds).await?,
            Action::Forward(one) => {
                if std::mem::replace(&mut forwarded, true) {
                    return Err(broken("a second `forward` in one operation"));
                }
                forward(one, performer, bounds).await?
            }
        };
        match performed {
            Performed::TooLate => return Ok(Outcome::Fail(too_late())),
            Performed::Event(event) => action = resume(place, &operation, event, bounds).await?,
        }
    }
    match action {
        Action::Reply(text) => reply(&text, bounds),
        Action::Fail(fault) => Ok(Outcome::Fail(fault)),
        Action::Sleep(_) | Action::Requests(_) | Action::Forward(_) => Err(PluginFault::Steps),
    }
}

async fn resume(
    place: &mut Place,
    operation: &Operation,
    event: Event,
    bounds: &Bounds<'_>,
) -> Result<Action, PluginFault> {
    let event = lower_event(event);
    let resumed = place
        .run(bounds.limits.step_timeout, Some(bounds.deadline + GRACE), |store| {
            operation.resume(store, &event)
        })
        .await?;
    lift_action(resumed.map_err(|e| place.fault(&e))?)
}

fn reply(text: &str, bounds: &Bounds<'_>) -> Result<Outcome, PluginFault> {
    if text.len() > bounds.limits.max_answer_bytes {
        return Err(PluginFault::Output);
    }
    json::parse(text, "the reply").map(Outcome::Reply).map_err(broken)
}

/// Not started at all where it would end past the deadline: the guest has nothing more to say in time.
async fn sleep(ms: u32, deadline: Instant) -> Result<Performed, PluginFault> {
    let until = Instant::now() + Duration::from_millis(ms.into());
    if until >= deadline {
        return Err(PluginFault::Deadline);
    }
    tokio::time::sleep_until(until).await;
    Ok(Performed::Event(Event::Woke))
}

async fn requests(
    mut all: Vec<PlannedRequest>,
    performer: &dyn Performer,
    bounds: &Bounds<'_>,
) -> Result<Performed, PluginFault> {
    let most = bounds.limits.max_requests_per_step as usize;
    if all.is_empty() || all.len() > most {
        return Err(broken(format!("{} requests in one action; 1 to {most} are allowed", all.len())));
    }
    for request in &mut all {
        crate::plan::check(request, bounds.grants, bounds.limits).map_err(broken)?;
        bound_timeout(request, bounds.deadline);
    }
    let performed = join_all(all.into_iter().map(|r| one(r, performer)));
    let Ok(results) = timeout_at(bounds.deadline, performed).await else { return Ok(Performed::TooLate) };
    if results.iter().any(Result::is_err) && Instant::now() >= bounds.deadline {
        // The performer's own clock was a little faster than this one.
        return Ok(Performed::TooLate);
    }
    let mut room = bounds.limits.max_response_bytes;
    let results = results.into_iter().map(|r| r.and_then(|response| fit(response, &mut room))).collect();
    Ok(Performed::Event(Event::Responses(results)))
}

/// One request, bounded by its own timeout.
async fn one(request: PlannedRequest, performer: &dyn Performer) -> Result<PlannedResponse, RequestFailure> {
    let Some(ms) = request.timeout_ms else { return performer.request(request).await.map_err(failed) };
    match tokio::time::timeout(Duration::from_millis(ms.into()), performer.request(request)).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(RequestFailure { kind: "timeout", message: format!("no answer within {ms} ms") }),
    }
}

/// A timeout that ends after the deadline is none: the deadline speaks.
fn bound_timeout(request: &mut PlannedRequest, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    if request.timeout_ms.is_some_and(|ms| u128::from(ms) >= left) {
        request.timeout_ms = None;
    }
}

/// All responses of one action share one bound: the runtime's size must not become the guest's memory fault.
fn fit(mut response: PlannedResponse, room: &mut usize) -> Result<PlannedResponse, RequestFailure> {
    match room.checked_sub(response.body.len()) {
        Some(left) => *room = left,
        None => return Err(failed("the answer is larger than Bay takes in")),
    }
    response.headers.truncate(MAX_HEADERS);
    for (name, _) in &mut response.headers {
        name.make_ascii_lowercase();
    }
    Ok(response)
}

async fn forward(
    mut request: PlannedRequest,
    performer: &dyn Performer,
    bounds: &Bounds<'_>,
) -> Result<Performed, PluginFault> {
    if !bounds.spec.streams && !bounds.spec.upgrade {
        return Err(broken("a `forward` in an operation that neither streams nor upgrades"));
    }
    crate::plan::check(&request, bounds.grants, bounds.limits).map_err(broken)?;
    bound_timeout(&mut request, bounds.deadline);
    match timeout_at(bounds.deadline, performer.forward(request)).await {
        Err(_) => Ok(Performed::TooLate),
        Ok(Err(_)) if Instant::now() >= bounds.deadline => Ok(Performed::TooLate),
        Ok(Err(why)) => Ok(Performed::Event(Event::Forwarded(Err(failed(why))))),
        Ok(Ok(mut end)) => {
            if let Some(refusal) = &mut end.refusal {
                refusal.truncate(MAX_REFUSAL);
            }
            Ok(Performed::Event(Event::Forwarded(Ok(end))))
        }
    }
}

/// A performer that gave up by its own clock says just `timeout`.
fn failed(why: impl AsRef<str>) -> RequestFailure {
    let kind = if why.as_ref() == "timeout" { "timeout" } else { "failed" };
    RequestFailure { kind, message: json::message(why.as_ref(), MAX_FAILURE) }
}

fn broken(why: impl Into<String>) -> PluginFault {
    PluginFault::Contract(why.into())
}

fn too_late() -> Fault {
    Fault {
        kind: FaultKind::Timeout,
        code: None,
        message: "the runtime did not answer within the call's deadline".into(),
        details: serde_json::json!({}),
    }
}
