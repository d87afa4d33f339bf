//! The record of an execution: the intent before anything is dispatched, one end after.

use serde_json::{Map, Value};

use super::admit::Routed;
use crate::app::App;
use crate::auth::OpContext;
use crate::error::{ApiError, ApiResult};
use crate::id::Kind;
use crate::profile::History;
use crate::store::{ExecutionStatus, FinishExecution, NewExecution, StoreError};
use crate::time::now_ms;

/// What the path remembers of a call: an execution's id, or nothing where the operation keeps no record.
pub struct Recorded {
    execution_id: Option<String>,
    keep: bool,
}

impl Recorded {
    /// Writes the intent, where the operation is one that records.
    pub(crate) async fn intend(app: &App, context: &OpContext, routed: &Routed) -> ApiResult<Self> {
        let admitted = &routed.admitted;
        if !admitted.spec()?.spec.records {
            return Ok(Self { execution_id: None, keep: false });
        }
        let keep = matches!(admitted.profile.history, History::Full);
        let text = |field: &str| admitted.input[field].as_str().map(str::to_owned);
        let id = Kind::Execution.mint();
        let intent = NewExecution {
            id: id.clone(),
            sandbox_id: admitted.sandbox.id.clone(),
            session_seq: None,
            capability: admitted.capability.clone(),
            operation: admitted.operation.clone(),
            code: text("code").or_else(|| text("command")).filter(|_| keep),
            description: text("description"),
            tags: text("tags"),
            plugin: admitted.adapter.plugin.name().to_owned(),
            plugin_digest: admitted.adapter.plugin.digest().to_owned(),
            created_at: now_ms(),
        };
        app.store.record_execution(&context.tenant, intent).await?;
        Ok(Self { execution_id: Some(id), keep })
    }

    /// `exe_…`, where there is one.
    pub fn execution_id(&self) -> Option<&str> {
        self.execution_id.as_deref()
    }

    /// Writes the end and returns the answer with what the host adds to it.
    pub(crate) async fn finish(
        &self,
        app: &App,
        context: &OpContext,
        routed: &Routed,
        outcome: ApiResult<(u64, Value)>,
    ) -> ApiResult<Value> {
        let Some(id) = &self.execution_id else { return outcome.map(|(_, value)| value) };
        let outcome = outcome.map(|(seq, value)| (seq, merged(value, id, seq)));
        let end = match &outcome {
            Ok((seq, value)) => self.ended(*seq, value),
            Err(error) => broke(error),
        };
        match app.store.finish_execution(&context.tenant, id, end).await {
            Ok(()) => {}
            // The sandbox was deleted while this ran: there is nobody left to remember it.
            Err(StoreError::NotFound { .. }) => {
                tracing::debug!(execution = %id, sandbox = %routed.admitted.sandbox.id, "ended after deletion");
            }
            Err(error) => return Err(outcome.err().unwrap_or_else(|| error.into())),
        }
        outcome.map(|(_, value)| value)
    }

    fn ended(&self, session_seq: u64, value: &Value) -> FinishExecution {
        let success = value["success"].as_bool().unwrap_or(true);
        let text = |field: &str| value[field].as_str().map(str::to_owned);
        FinishExecution {
            status: if success { ExecutionStatus::Succeeded } else { ExecutionStatus::Failed },
            session_seq: Some(session_seq),
            kernel_seq: value["kernel_seq"].as_u64(),
            output: text("output").filter(|_| self.keep),
            error: text("error").filter(|_| self.keep),
            result: Some(value.clone()).filter(|_| self.keep),
            success,
            execution_time_ms: value["execution_time_ms"].as_u64(),
            ended_at: now_ms(),
            idle_expires_at: None,
        }
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
    }
}

/// Adds the host's own fields; an adapter cannot set them.
fn merged(value: Value, execution_id: &str, session_seq: u64) -> Value {
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
