//! The execution object of the contract.

use serde_json::{Value, json};

use crate::store::{ExecutionRow, ExecutionStatus};
use crate::time::{rfc3339, rfc3339_or_null};

/// An entry of a history.
pub fn history_object(row: &ExecutionRow) -> Value {
    json!({
        "id": row.id,
        "session_seq": row.session_seq,
        "exec_type": row.exec_type.as_str(),
        "code": row.code,
        "success": row.success,
        "execution_time_ms": row.execution_time_ms,
        "output": row.output,
        "error": row.error,
        "description": row.description,
        "tags": row.tags,
        "notes": row.notes,
        "plugin": row.plugin,
        "created_at": rfc3339(row.created_at),
    })
}

/// As `GET …/executions/{id}` shows it. `result` is the answer the POST gave, or would have given.
pub fn execution_object(row: &ExecutionRow) -> Value {
    let status = match row.status {
        ExecutionStatus::Running => "running",
        ExecutionStatus::Succeeded => "succeeded",
        ExecutionStatus::Failed => "failed",
        ExecutionStatus::Error => "error",
        ExecutionStatus::Lost => "lost",
    };
    json!({
        "execution_id": row.id,
        "sandbox_id": row.sandbox_id,
        "status": status,
        "capability": row.capability,
        "operation": row.operation,
        "session_seq": row.session_seq,
        "kernel_seq": row.kernel_seq,
        "code": row.code,
        "description": row.description,
        "tags": row.tags,
        "notes": row.notes,
        "success": row.success,
        "output": row.output,
        "error": row.error,
        "result": row.result,
        "result_dropped": row.result_dropped,
        "execution_time_ms": row.execution_time_ms,
        "plugin": row.plugin,
        "created_at": rfc3339(row.created_at),
        "ended_at": rfc3339_or_null(row.ended_at),
    })
}
