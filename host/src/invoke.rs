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
use tokio::sync::oneshot;

use crate::app::App;
use crate::auth::OpContext;
use crate::error::ApiResult;
use crate::execution::admit;
use crate::execution::known::Known;
use crate::execution::streaming::{Events, Listener};
use crate::execution::work::Work;
use crate::execution::{Recorded, Stage, Stages, dispatch};
use crate::id::Kind;
use crate::runtime::{CallerRequest, Forwarded};
use crate::store::Claim;

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
    /// What the client wants of it.
    pub wants: Wants,
    /// The key of the request, for the record of an execution.
    pub claim: Option<Claim>,
}

/// What a client wants of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// One answer.
    Answer,
    /// An execution's events while they come. An operation that keeps no record gives one answer all the same.
    Events,
    /// One answer, and only from a session that runs already.
    AnswerIfAwake,
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
    /// With events.
    Events(Events),
    /// Not at all: no session runs, and none was to be started.
    Asleep,
}

/// A call that is under way by itself.
#[derive(Debug)]
pub enum Begun {
    /// There is an answer already, or one that comes piece by piece.
    Answered(Answer),
    /// There will be.
    Working {
        /// `exe_…`, where the call is an execution.
        execution_id: Option<String>,
        /// How long its client waits.
        wait: Duration,
        /// The answer.
        answered: oneshot::Receiver<ApiResult<Answer>>,
    },
}

impl Begun {
    /// Waits for the answer as long as the client does.
    pub async fn answer(self) -> ApiResult<Answer> {
        let (execution_id, wait, answered) = match self {
            Self::Answered(answer) => return Ok(answer),
            Self::Working { execution_id, wait, answered } => (execution_id, wait, answered),
        };
        match (tokio::time::timeout(wait, answered).await, execution_id) {
            (Ok(Ok(answer)), _) => answer,
            (Err(_), Some(execution_id)) => Ok(Answer::Running { execution_id }),
            (Err(_), None) => Err(dispatch::overdue(wait)),
            (Ok(Err(_)), _) => Err(dispatch::abandoned()),
        }
    }
}

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
    if wants == Wants::AnswerIfAwake && app.sessions.ready(&sandbox_id).is_none() {
        return Ok(Begun::Answered(Answer::Asleep));
    }
    // Work outlives its client, so it is work that is bounded, not connections.
    let slot = dispatch::slot(app)?;
    let execution_id = routed.admitted.is_recorded().then(|| Kind::Execution.mint());
    let flying = execution_id.as_deref().map(|id| app.flights.begin(id));
    let listens = wants == Wants::Events && execution_id.is_some();
    let place = (listens || routed.is_stream()).then(|| app.streams.open(&context.tenant)).transpose()?;
    // Events take a place as long as somebody listens, whatever then becomes of the work.
    let (listening, stream) = if listens { (place, None) } else { (None, place) };
    let recorded = Recorded::intend(app, context, &routed, execution_id.clone(), claim).await;
    let recorded = passed(stages, Stage::Record, recorded)?;
    if let Some(id) = &execution_id {
        stages.name(id);
    }
    let work = Work {
        app: Arc::clone(app),
        context: context.clone(),
        stages: Arc::clone(stages),
        flying,
        at: None,
        _slot: slot,
        _stream: stream,
    };
    if let Some(place) = listening {
        let (listener, events) = Listener::of(&routed, place);
        tokio::spawn(work.stream(routed, recorded, caller, listener));
        return Ok(Begun::Answered(Answer::Events(events)));
    }
    let wait = routed.admitted.wait();
    let (answer, answered) = oneshot::channel();
    tokio::spawn(work.run(routed, recorded, caller, answer));
    Ok(Begun::Working { execution_id, wait, answered })
}

/// Asks something of an execution that was made before, where it ran; the answer streams.
pub(crate) async fn follow_up(
    app: &Arc<App>,
    context: &OpContext,
    known: Known,
    id: &str,
    wants: Wants,
    caller: CallerRequest,
) -> ApiResult<Answer> {
    let Known { routed, lease } = known;
    let work = Work {
        app: Arc::clone(app),
        context: context.clone(),
        stages: Arc::new(Stages::begin()),
        flying: None,
        at: Some(lease),
        _slot: dispatch::slot(app)?,
        _stream: None,
    };
    let recorded = Recorded::Known { id: id.to_owned() };
    if wants == Wants::Events {
        let (opened, open) = oneshot::channel();
        let stream = app.streams.open(&context.tenant)?;
        let (listener, events) = Listener::beside(opened, stream);
        tokio::spawn(work.stream(routed, recorded, caller, listener));
        return match open.await {
            Ok(open) => open.map(|()| Answer::Events(events)),
            Err(_) => Err(dispatch::abandoned()),
        };
    }
    let (answer, answered) = oneshot::channel();
    tokio::spawn(work.run(routed, recorded, caller, answer));
    answered.await.unwrap_or_else(|_| Err(dispatch::abandoned()))
}

fn passed<T>(stages: &Stages, stage: Stage, result: ApiResult<T>) -> ApiResult<T> {
    stages.done(stage);
    result
}

/// How long a client waits for an execution that does not say: its own timeout and a little more.
pub const WAIT_GRACE: Duration = Duration::from_secs(5);

/// What the host adds to an execution's own timeout before it gives the runtime up.
pub const DEADLINE_GRACE: Duration = Duration::from_secs(15);
