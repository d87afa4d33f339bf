//! A call in its session: have one, then let the adapter plan and the performer act.

use std::sync::Arc;
use std::time::Duration;

use bay_plugin_host::{Call, CallContext, Fault, Outcome};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::Recorded;
use super::admit::{Admitted, Routed};
use crate::app::App;
use crate::auth::{OpContext, Tenant};
use crate::error::{ApiError, ApiResult, Code, fault_code};
use crate::places::Place;
use crate::runtime::{CallerRequest, Errand, Forwarded, RuntimePerformer, Unreached};
use crate::session::{Lease, SessionError};

/// Longest message of a fault that a client sees.
const MAX_MESSAGE: usize = 8 << 10;
/// What an adapter has for its answer after its runtime ran out of time.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a caller is told to wait when a start takes longer than its budget: about a kernel's start.
const START_RETRY: Duration = Duration::from_secs(2);

/// Most calls in flight of one tenant: three quarters of all, so that there is always room for others.
const MAX_CALLS_OF_TENANT: u64 = 768;

/// A place among the calls in flight.
pub(crate) struct Slot {
    _of_all: OwnedSemaphorePermit,
    _of_tenant: Place,
}

/// Takes one; 503 where there is none, of all or of this tenant's share.
pub(crate) fn slot(app: &App, tenant: &Tenant) -> ApiResult<Slot> {
    let full = |message: &str| ApiError::new(Code::Overloaded, message).after(Duration::from_secs(1));
    let of_tenant = app.calls.take(tenant, Some(MAX_CALLS_OF_TENANT));
    let _of_tenant =
        of_tenant.map_err(|_| full("too many of your calls are in flight; wait for some to end"))?;
    let of_all = Arc::clone(&app.slots).try_acquire_owned();
    let _of_all = of_all.map_err(|_| full("too many calls are in flight; try again shortly"))?;
    Ok(Slot { _of_all, _of_tenant })
}

/// A ready session, within the caller's budget; the start goes on beyond it.
pub(crate) async fn start(app: &App, admitted: &Admitted) -> ApiResult<Lease> {
    let sandbox = &admitted.sandbox;
    let expected = admitted.input["expect_session"].as_u64();
    if let Some(expected) = expected {
        // Checked before anything could start: a session that is gone must not be replaced by asking for it.
        let current = app.sessions.view(&sandbox.id).live.map(|live| live.seq);
        if current != Some(expected) {
            return Err(state_lost(expected));
        }
    }
    let lease =
        app.sessions.ensure_running(sandbox, *app.config.sessions.start_wait).await.map_err(|e| match e {
            SessionError::StillStarting => {
                let ms = u64::try_from(START_RETRY.as_millis()).unwrap_or(u64::MAX);
                ApiError::new(Code::SessionNotReady, "the sandbox is still starting; try again")
                    .with(json!({ "sandbox_id": sandbox.id, "retry_after_ms": ms }))
                    .after(START_RETRY)
            }
            SessionError::Failed(error) => error,
            SessionError::Overloaded => {
                ApiError::new(Code::Overloaded, "too many calls wait for this sandbox")
                    .after(Duration::from_secs(1))
            }
        })?;
    match expected {
        Some(expected) if expected != lease.live.seq => Err(state_lost(expected)),
        Some(_) | None => Ok(lease),
    }
}

fn state_lost(expected: u64) -> ApiError {
    ApiError::new(
        Code::StateLost,
        format!("session {expected} is gone, and what it held with it; nothing ran"),
    )
    .with(json!({ "expect_session": expected }))
}

/// What a call has to do with its client.
pub(crate) struct Client {
    /// What a forward sends on.
    pub(crate) caller: CallerRequest,
    /// Takes the answer of a forward.
    pub(crate) forward: oneshot::Sender<Forwarded>,
    /// The client wants the execution's events.
    pub(crate) events: bool,
}

/// Runs the adapter to its end; faults become errors of the contract.
pub(crate) async fn adapt(
    context: &OpContext,
    routed: &Routed,
    recorded: &Recorded,
    lease: &Lease,
    client: Client,
) -> ApiResult<Value> {
    let Client { caller, forward, events } = client;
    let admitted = &routed.admitted;
    let Some(container) = lease.live.containers.iter().find(|c| c.name == routed.container) else {
        return Err(ApiError::new(
            Code::SessionNotReady,
            "the session has no such container yet; stop and try again",
        )
        .with(json!({ "sandbox_id": admitted.sandbox.id, "retry_after_ms": 0 })));
    };
    if container.client.is_paused() {
        return Err(paused());
    }
    let bound = routed.timeout.map_or(admitted.deadline(), |t| t.min(admitted.deadline()));
    let deadline = Instant::now() + bound;
    let execution_id = recorded.execution_id().map(str::to_owned);
    let performer = RuntimePerformer::new(
        Arc::clone(&container.client),
        Errand {
            request_id: context.request_id.clone(),
            execution_id: execution_id.clone(),
            session_seq: lease.live.seq,
        },
        deadline,
        routed.retries,
        caller,
        forward,
    );
    let call = Call {
        capability: admitted.capability.clone(),
        operation: admitted.operation.clone(),
        input: admitted.input.clone(),
        context: CallContext {
            request_id: context.request_id.clone(),
            execution_id,
            sandbox_id: admitted.sandbox.id.clone(),
            session_seq: lease.live.seq,
            deadline_ms: u32::try_from(bound.as_millis()).unwrap_or(u32::MAX),
            facts: Vec::from_iter(events.then(|| ("events".to_owned(), "true".to_owned()))),
        },
    };
    // The performer gives up first, so that the adapter can say in its own words that the runtime did not answer.
    match admitted.adapter.plugin.run(call, &performer, deadline + LAST_WORDS).await {
        Ok(Outcome::Reply(value)) => Ok(value),
        Ok(Outcome::Fail(fault)) => match performer.unreached().await {
            // Nothing ran, and the runtime is not to blame: its container has gone, maybe with its engine.
            Some(Unreached::Away(error)) => Err(error.into()),
            Some(Unreached::Ended) => Err(just_ended(&admitted.sandbox.id)),
            None => Err(faulty(fault)),
        },
        Err(error) => Err(error.into()),
    }
}

/// Known beforehand, so that the call need not wait for an answer that cannot come. Nothing ran.
fn paused() -> ApiError {
    ApiError::new(
        Code::Unavailable,
        "the sandbox's container was paused on the engine that runs it; it goes on when it is resumed there, or stop \
         the sandbox and call again",
    )
    .with(json!({ "part": "container", "reason": "paused" }))
    .after(START_RETRY)
}

fn just_ended(sandbox_id: &str) -> ApiError {
    let ms = u64::try_from(START_RETRY.as_millis()).unwrap_or(u64::MAX);
    ApiError::new(
        Code::SessionNotReady,
        "the sandbox's container has just ended; the next call starts another",
    )
    .with(json!({ "sandbox_id": sandbox_id, "retry_after_ms": ms }))
    .after(START_RETRY)
}

/// An adapter's fault, as the contract words it. What the runtime calls it goes into the details.
fn faulty(fault: Fault) -> ApiError {
    let mut message = fault.message;
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    let code = fault_code(fault.kind);
    let mut details = if fault.details.is_object() { fault.details } else { json!({}) };
    if let (Some(own), Some(details)) = (fault.code, details.as_object_mut())
        && own != code.as_str()
    {
        details.insert("runtime_code".to_owned(), Value::String(own));
    }
    let mut error = ApiError::new(code, message).with(details);
    if code == Code::Busy {
        error = error.after(Duration::from_secs(1));
    }
    error
}

/// Past the bound before the runtime answered.
pub(crate) fn overdue(bound: Duration) -> ApiError {
    ApiError::new(Code::Timeout, format!("the runtime did not answer within {} s", bound.as_secs()))
}

/// The work ended without an answer: a bug, since every path sends one.
pub(crate) fn abandoned() -> ApiError {
    ApiError::internal("a call ended without an answer")
}
