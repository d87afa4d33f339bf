//! A call on its way through its session, apart from the client that made it: it goes on when that one goes.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;

use super::admit::Routed;
use super::dispatch::{self, Client, Slot};
use super::follow;
use super::{Flying, Recorded, Stage, Stages};
use crate::app::App;
use crate::auth::OpContext;
use crate::error::{ApiError, ApiResult, Code};
use crate::invoke::Answer;
use crate::runtime::CallerRequest;
use crate::session::Lease;
use crate::streams::StreamGuard;

/// What a call takes along.
pub(crate) struct Work {
    pub(crate) app: Arc<App>,
    pub(crate) context: OpContext,
    pub(crate) stages: Arc<Stages>,
    /// Of an execution of its own.
    pub(crate) flying: Option<Flying>,
    /// The session it has to run in; null: whichever there is, and else a new one.
    pub(crate) at: Option<Lease>,
    pub(crate) _slot: Slot,
    /// Its place among the tenant's open streams, where it is one.
    pub(crate) _stream: Option<StreamGuard>,
}

impl Work {
    /// To the end, for a client that waits for one answer.
    pub(crate) async fn run(
        self,
        routed: Routed,
        recorded: Recorded,
        caller: CallerRequest,
        answer: oneshot::Sender<ApiResult<Answer>>,
    ) {
        let (forward, mut forwarded) = oneshot::channel();
        let client = Client { caller, forward, events: false };
        let work = async {
            let lease = self.lease(&routed, &recorded).await?;
            let reply = dispatch::adapt(&self.context, &routed, &recorded, &lease, client).await;
            self.stages.done(Stage::Adapt);
            Ok((lease.live.seq, reply?))
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
            None => work.as_mut().await,
        };
        let finished = self.finish(&routed, &recorded, outcome).await;
        if let Some(answer) = answer {
            let _gone = answer.send(finished.map(Answer::Done));
        }
    }

    /// A session to run in, noted in the record.
    pub(super) async fn lease(&self, routed: &Routed, recorded: &Recorded) -> ApiResult<Lease> {
        let lease = match &self.at {
            Some(lease) => Ok(lease.again()),
            None => self.start(routed).await,
        };
        self.stages.done(Stage::Start);
        let lease = lease?;
        recorded.place(&self.app, &self.context, lease.live.seq).await?;
        Ok(lease)
    }

    async fn start(&self, routed: &Routed) -> ApiResult<Lease> {
        let start = dispatch::start(&self.app, &routed.admitted);
        let Some(flying) = &self.flying else { return start.await };
        tokio::select! {
            biased;
            () = flying.cancelled() => Err(cancelled()),
            lease = start => lease,
        }
    }

    /// Writes the end; tells those who wait for it.
    pub(super) async fn finish(
        &self,
        routed: &Routed,
        recorded: &Recorded,
        outcome: ApiResult<(u64, Value)>,
    ) -> ApiResult<Value> {
        let outcome = match (outcome, recorded.execution_id()) {
            (Err(error), Some(id)) if error.code == Code::Timeout => {
                let late = follow::late(&self.app, &self.context, &routed.admitted.sandbox.id, id).await;
                late.unwrap_or(Err(error))
            }
            (outcome, _) => outcome,
        };
        crate::telemetry::metrics::call_ended(&routed.admitted.capability, &outcome);
        let finished = recorded.finish(&self.app, &self.context, routed, outcome).await;
        if let Some(flying) = &self.flying {
            flying.land(&finished);
        }
        finished
    }
}

fn cancelled() -> ApiError {
    ApiError::new(Code::Conflict, "the execution was cancelled before it began; nothing ran")
}
