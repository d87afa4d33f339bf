//! The record of an execution: the intent before anything is dispatched, one end after.

use std::time::Duration;

use serde_json::{Map, Value};

use super::admit::Routed;
use crate::app::App;
use crate::auth::OpContext;
use crate::error::{ApiError, ApiResult, Code};
use crate::profile::History;
use crate::store::{Claim, ExecutionStatus, FinishExecution, NewExecution, StoreError};
use crate::time::now_ms;

/// Before the first repeat of a write that failed, doubled for each further one ...
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// ... up to this: some 16 s in all.
const LAST_PAUSE: Duration = Duration::from_secs(8);

/// What the path remembers of a call.
pub enum Recorded {
    /// Nothing: the operation keeps no record.
    Unrecorded,
    /// An execution of its own, whose end it will write.
    Own {
        /// `exe_…`
        id: String,
        /// Whether its payloads are kept.
        keep: bool,
        /// The session that it was going to run in when its intent was written.
        session_seq: Option<u64>,
    },
    /// An execution that another call made.
    Known {
        /// `exe_…`
        id: String,
    },
}

impl Recorded {
    /// Writes the intent, where the operation is one that records. Its id has a flight by then.
    pub(crate) async fn intend(
        app: &App,
        context: &OpContext,
        routed: &Routed,
        id: Option<String>,
        claim: Option<Claim>,
    ) -> ApiResult<Self> {
        let Some(id) = id else { return Ok(Self::Unrecorded) };
        let admitted = &routed.admitted;
        let keep = matches!(admitted.profile.history, History::Full);
        let text = |field: &str| admitted.input[field].as_str().map(str::to_owned);
        let session_seq = app.sessions.view(&admitted.sandbox.id).live.map(|live| live.seq);
        let intent = NewExecution {
            id: id.clone(),
            sandbox_id: admitted.sandbox.id.clone(),
            session_seq,
            capability: admitted.capability.clone(),
            operation: admitted.operation.clone(),
            code: text("code").or_else(|| text("command")).filter(|_| keep),
            description: text("description"),
            tags: text("tags"),
            container: routed.container.clone(),
            listed: !matches!(admitted.profile.history, History::Off),
            plugin: admitted.adapter.plugin.name().to_owned(),
            plugin_digest: admitted.adapter.plugin.digest().to_owned(),
            claim,
            created_at: now_ms(),
        };
        app.store.record_execution(&context.tenant, intent).await?;
        Ok(Self::Own { id, keep, session_seq })
    }

    /// `exe_…` of what this call runs, where it runs something of its own.
    pub fn execution_id(&self) -> Option<&str> {
        match self {
            Self::Own { id, .. } => Some(id),
            Self::Unrecorded | Self::Known { .. } => None,
        }
    }

    /// Notes the session that it runs in, where that is another than its intent says.
    pub(crate) async fn place(&self, app: &App, context: &OpContext, seq: u64) -> ApiResult<()> {
        match self {
            Self::Own { id, session_seq, .. } if *session_seq != Some(seq) => {
                Ok(app.store.place_execution(&context.tenant, id, seq).await?)
            }
            Self::Own { .. } | Self::Unrecorded | Self::Known { .. } => Ok(()),
        }
    }

    /// Writes the end and returns the answer with what the host adds to it.
    pub(crate) async fn finish(
        &self,
        app: &App,
        context: &OpContext,
        routed: &Routed,
        outcome: ApiResult<(u64, Value)>,
    ) -> ApiResult<Value> {
        let (id, keep) = match self {
            Self::Unrecorded => return outcome.map(|(_, value)| value),
            Self::Known { id } => return outcome.map(|(seq, value)| merged(value, id, seq)),
            Self::Own { id, keep, .. } => (id, *keep),
        };
        let outcome = outcome.map(|(seq, value)| (seq, merged(value, id, seq)));
        let end = end(keep, &outcome);
        match write(app, context, id, end).await {
            Ok(()) => {}
            // The sandbox was deleted while this ran: there is nobody left to remember it.
            Err(StoreError::NotFound { .. }) => {
                tracing::debug!(execution = %id, sandbox = %routed.admitted.sandbox.id, "ended after deletion");
            }
            Err(error) => return Err(outcome.err().unwrap_or_else(|| error.into())),
        }
        outcome.map(|(_, value)| value)
    }
}

/// Writes an end. A store that is flooded or away for a moment is tried again: without its end an execution would count
/// as running until the next start.
async fn write(app: &App, context: &OpContext, id: &str, end: FinishExecution) -> Result<(), StoreError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let written = app.store.finish_execution(&context.tenant, id, end.clone()).await;
        let passing = matches!(written, Err(StoreError::Overloaded | StoreError::Unavailable { .. }));
        if !passing || pause > LAST_PAUSE {
            return written;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// The end to be written, by how the call is answered. Its payloads only where they are kept.
pub(super) fn end(keep: bool, outcome: &ApiResult<(u64, Value)>) -> FinishExecution {
    match outcome {
        Ok((seq, value)) => ended(keep, *seq, value),
        Err(error) => broke(error),
    }
}

fn ended(keep: bool, session_seq: u64, value: &Value) -> FinishExecution {
    let success = value["success"].as_bool().unwrap_or(true);
    let text = |field: &str| value[field].as_str().map(str::to_owned);
    FinishExecution {
        status: if success { ExecutionStatus::Succeeded } else { ExecutionStatus::Failed },
        session_seq: Some(session_seq),
        kernel_seq: value["kernel_seq"].as_u64(),
        output: text("output").filter(|_| keep),
        error: text("error").filter(|_| keep),
        result: Some(value.clone()).filter(|_| keep),
        success,
        execution_time_ms: value["execution_time_ms"].as_u64(),
        ended_at: now_ms(),
        idle_expires_at: None,
        frees_key: false,
    }
}

fn broke(error: &ApiError) -> FinishExecution {
    FinishExecution {
        status: ExecutionStatus::Error,
        session_seq: None,
        kernel_seq: None,
        output: None,
        error: Some(format!("{}: {}", error.code.as_str(), error.message)),
        result: None,
        success: false,
        execution_time_ms: None,
        ended_at: now_ms(),
        idle_expires_at: None,
        frees_key: never_ran(error.code),
    }
}

/// Whether a call that is answered so did nothing, and may do it when it is repeated.
fn never_ran(code: Code) -> bool {
    matches!(
        code,
        Code::SessionNotReady
            | Code::Busy
            | Code::Overloaded
            | Code::Unavailable
            | Code::NetworkUnavailable
            | Code::QuotaExceeded
    )
}

/// Adds the host's own fields; an adapter cannot set them.
pub(super) fn merged(value: Value, execution_id: &str, session_seq: u64) -> Value {
    let mut object = match value {
        Value::Object(object) => object,
        other => Map::from_iter([("result".to_owned(), other)]),
    };
    object.insert("execution_id".to_owned(), execution_id.into());
    object.insert("session_seq".to_owned(), session_seq.into());
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_adapter_cannot_name_another_execution_or_session() {
        let value = merged(json!({ "execution_id": "exe_other", "session_seq": 9, "x": 1 }), "exe_mine", 2);
        assert_eq!(value, json!({ "execution_id": "exe_mine", "session_seq": 2, "x": 1 }));
    }
}
