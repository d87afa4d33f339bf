//! The path of a call, aloud: find and check it, ask the rules, choose a container, write down the intent, have a
//! session, let the adapter work, write down the end. REST and (later) MCP both come through here.
//!
//! ```text
//! admit ──▶ rules ──▶ route ──▶ record ──▶ start ──▶ adapt ──▶ finish
//! ```
//!
//! Nothing starts before `route`; nothing is dispatched before `record`. From `start` on the work goes on by
//! itself: a client that stops waiting gets 202, one that goes away leaves a record.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::app::App;
use crate::auth::OpContext;
use crate::error::{ApiError, ApiResult};
use crate::execution::admit;
pub use crate::execution::call::{Answer, Begun, CallRequest, Wants};
use crate::execution::streaming::Listener;
use crate::execution::work::Work;
use crate::execution::{Recorded, Stage, Stages, dispatch};
use crate::id::Kind;

/// Takes a call all the way. `stages` shows how far it came, whatever the result.
pub async fn invoke(
    app: &Arc<App>,
    context: &OpContext,
    call: CallRequest,
    stages: &Arc<Stages>,
) -> ApiResult<Answer> {
    begin(app, context, call, stages).await?.answer().await
}

/// Takes a call as far as its record, and sets the rest going.
pub async fn begin(
    app: &Arc<App>,
    context: &OpContext,
    call: CallRequest,
    stages: &Arc<Stages>,
) -> ApiResult<Begun> {
    let CallRequest { sandbox_id, capability, operation, input, caller, wants, claim } = call;
    let admitted = admit::admit(app, context, &sandbox_id, &capability, &operation, input).await;
    let admitted = passed(stages, Stage::Admit, admitted)?;
    let admitted = passed(stages, Stage::Rules, admit::rules(context, admitted).await)?;
    let admitted = admitted.make_room(app, caller.announced()).await?;
    let routed = passed(stages, Stage::Route, admit::route(app, admitted).await)?;
    routed.check_upgrade(caller.upgrade.is_some())?;
    if claim.is_some() && !routed.admitted.is_recorded() {
        return Err(ApiError::field(
            "Idempotency-Key",
            "this operation keeps no record that a repeat could find; leave it out",
        ));
    }
    if wants == Wants::AnswerIfAwake && app.sessions.ready(&sandbox_id).is_none() {
        return Ok(Begun::Answered(Answer::Asleep));
    }
    // Work outlives its client, so it is work that is bounded, not connections.
    let slot = dispatch::slot(app, &context.tenant)?;
    let execution_id = routed.admitted.is_recorded().then(|| Kind::Execution.mint());
    let flying = execution_id.as_deref().map(|id| app.flights.begin(id));
    let listens = wants == Wants::Events && execution_id.is_some();
    let place = (listens || routed.is_stream()).then(|| app.streams.open(&context.tenant)).transpose()?;
    // Events take a place as long as somebody listens, whatever then becomes of the work.
    let (listening, stream) = if listens { (place, None) } else { (None, place) };
    let (app, context, stages) = (Arc::clone(app), context.clone(), Arc::clone(stages));
    // A client that goes away at this moment must not leave an intent without its work.
    let begun = tokio::spawn(async move {
        let recorded = Recorded::intend(&app, &context, &routed, execution_id.clone(), claim).await;
        let recorded = passed(&stages, Stage::Record, recorded)?;
        if let Some(id) = &execution_id {
            stages.name(id);
        }
        let work = Work { app, context, stages, flying, at: None, _slot: slot, _stream: stream };
        if let Some(place) = listening {
            let (listener, events) = Listener::of(&routed, place);
            tokio::spawn(work.stream(routed, recorded, caller, listener));
            return Ok(Begun::Answered(Answer::Events(events)));
        }
        let wait = routed.admitted.wait();
        let (answer, answered) = oneshot::channel();
        tokio::spawn(work.run(routed, recorded, caller, answer));
        Ok(Begun::Working { execution_id, wait, answered })
    });
    begun.await.unwrap_or_else(|_| Err(dispatch::abandoned()))
}

fn passed<T>(stages: &Stages, stage: Stage, result: ApiResult<T>) -> ApiResult<T> {
    stages.done(stage);
    result
}

/// How long a client waits for an execution that does not say: its own timeout and a little more.
pub const WAIT_GRACE: Duration = Duration::from_secs(5);

/// What the host adds to an execution's own timeout before it gives the runtime up.
pub const DEADLINE_GRACE: Duration = Duration::from_secs(15);
