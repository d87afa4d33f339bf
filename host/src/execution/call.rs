//! A call and its answer, as the edge and the request path pass them to each other.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::dispatch;
use super::streaming::Events;
use crate::error::ApiResult;
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
