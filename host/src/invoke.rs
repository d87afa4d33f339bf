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

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::app::App;
use crate::auth::OpContext;
use crate::error::ApiResult;
use crate::execution::admit;
use crate::execution::{Recorded, Stage, Stages, dispatch};
use crate::runtime::{CallerRequest, Forwarded};

/// A capability call as the edge understood it.
pub struct CallRequest {
    /// `sbx_…`, as the client wrote it.
    pub sandbox_id: String,
    /// For instance `python`.
    pub capability: String,
    /// For instance `exec`.
    pub operation: String,
    /// A JSON object, unchecked.
    pub input: Value,
    /// What a forward may stream from and to the client.
    pub caller: CallerRequest,
}

/// How a call was answered.
#[derive(Debug)]
pub enum Answer {
    /// With JSON.
    Done(Value),
    /// Not within `wait`; the execution goes on.
    Running {
        /// `exe_…`
        execution_id: String,
    },
    /// With a body that streams from the runtime.
    Stream(Forwarded),
}

/// Takes a call all the way. `stages` shows how far it came, whatever the result.
pub async fn invoke(
    app: &Arc<App>,
    context: &OpContext,
    call: CallRequest,
    stages: &Arc<Stages>,
) -> ApiResult<Answer> {
    let CallRequest { sandbox_id, capability, operation, input, caller } = call;
    let admitted = admit::admit(app, context, &sandbox_id, &capability, &operation, input).await;
    let admitted = passed(stages, Stage::Admit, admitted)?;
    let admitted = passed(stages, Stage::Rules, admit::rules(context, admitted).await)?;
    let routed = passed(stages, Stage::Route, admit::route(app, admitted).await)?;
    // Work outlives its client, so it is work that is bounded, not connections.
    let slot = dispatch::slot(app)?;
    let recorded = Recorded::intend(app, context, &routed).await;
    let recorded = passed(stages, Stage::Record, recorded)?;

    let wait = routed.admitted.wait();
    let execution_id = recorded.execution_id().map(str::to_owned);
    let (answer, answered) = oneshot::channel();
    let work =
        Work { app: Arc::clone(app), context: context.clone(), stages: Arc::clone(stages), _slot: slot };
    tokio::spawn(work.run(routed, recorded, caller, answer));
    match (tokio::time::timeout(wait, answered).await, execution_id) {
        (Ok(Ok(answer)), _) => answer,
        (Err(_), Some(execution_id)) => Ok(Answer::Running { execution_id }),
        (Err(_), None) => Err(dispatch::overdue(wait)),
        (Ok(Err(_)), _) => Err(dispatch::abandoned()),
    }
}

fn passed<T>(stages: &Stages, stage: Stage, result: ApiResult<T>) -> ApiResult<T> {
    stages.done(stage);
    result
}

/// A call on its way through its session, apart from the client that made it.
struct Work {
    app: Arc<App>,
    context: OpContext,
    stages: Arc<Stages>,
    _slot: OwnedSemaphorePermit,
}

impl Work {
    async fn run(
        self,
        routed: admit::Routed,
        recorded: Recorded,
        caller: CallerRequest,
        answer: oneshot::Sender<ApiResult<Answer>>,
    ) {
        let (forward, mut forwarded) = oneshot::channel();
        let work = async {
            let lease = dispatch::start(&self.app, &routed.admitted).await;
            let lease = passed(&self.stages, Stage::Start, lease)?;
            let session_seq = lease.live.seq;
            let reply = dispatch::adapt(&self.context, &routed, &recorded, &lease, caller, forward).await;
            Ok((session_seq, passed(&self.stages, Stage::Adapt, reply)?))
        };
        let mut work = std::pin::pin!(work);
        // A forward answers the client while the adapter still waits to hear how it ended.
        let (outcome, stream) = tokio::select! {
            biased;
            Ok(stream) = &mut forwarded => (None, Some(stream)),
            // A short body may have gone through whole before anybody looked.
            outcome = &mut work => (Some(outcome), forwarded.try_recv().ok()),
        };
        let answer = if let Some(stream) = stream {
            let _gone = answer.send(Ok(Answer::Stream(stream)));
            None
        } else {
            Some(answer)
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => work.await,
        };
        crate::telemetry::metrics::call_ended(&routed.admitted.capability, &outcome);
        let finished = recorded.finish(&self.app, &self.context, &routed, outcome).await;
        if let Some(answer) = answer {
            let _gone = answer.send(finished.map(Answer::Done));
        }
    }
}

/// How long a client waits for an execution that does not say: its own timeout and a little more.
pub const WAIT_GRACE: Duration = Duration::from_secs(5);

/// What the host adds to an execution's own timeout before it gives the runtime up.
pub const DEADLINE_GRACE: Duration = Duration::from_secs(15);
