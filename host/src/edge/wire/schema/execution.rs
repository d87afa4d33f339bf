//! Executions and history.

use serde_json::Value;
use utoipa::ToSchema;

/// The record of an execution.
#[derive(Debug, ToSchema)]
pub struct Execution {
    /// `exe_…`
    #[schema(example = "exe_01k0r3v8e0c1h4m6q9s2t5w7xy")]
    pub execution_id: String,
    /// Where it ran.
    pub sandbox_id: String,
    /// `running`, `succeeded`, `failed`, `error` or `lost`; more may come.
    pub status: String,
    /// The capability that was called.
    pub capability: String,
    /// The operation that was called.
    pub operation: String,
    /// In which session; null until known.
    #[schema(required)]
    pub session_seq: Option<i64>,
    /// In which kernel; null but for Python.
    #[schema(required)]
    pub kernel_seq: Option<i64>,
    /// What was run, where the profile's history keeps it.
    #[schema(required)]
    pub code: Option<String>,
    /// As the client gave it.
    #[schema(required)]
    pub description: Option<String>,
    /// As the client gave them.
    #[schema(required)]
    pub tags: Option<String>,
    /// Null until it has ended.
    #[schema(required)]
    pub success: Option<bool>,
    /// What it printed, where kept; at most 64 KiB.
    #[schema(required)]
    pub output: Option<String>,
    /// What went wrong, for a person.
    #[schema(required)]
    pub error: Option<String>,
    /// The answer that the POST gave, or would have given.
    #[schema(required, value_type = Option<Object>)]
    pub result: Option<Value>,
    /// The answer was too large to keep.
    pub result_dropped: bool,
    /// How long it ran.
    #[schema(required)]
    pub execution_time_ms: Option<i64>,
    /// The adapter that ran it.
    pub plugin: String,
    /// When it was recorded.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it ended.
    #[schema(required, format = DateTime)]
    pub ended_at: Option<String>,
}

/// An execution that goes on after the wait is over.
#[derive(Debug, ToSchema)]
pub struct Running {
    /// `exe_…`; `GET …/executions/{id}` shows how it stands.
    pub execution_id: String,
    /// `running`
    pub status: String,
}

/// An execution as history shows it.
#[derive(Debug, ToSchema)]
pub struct HistoryEntry {
    /// `exe_…`
    pub id: String,
    /// In which session; null until known.
    #[schema(required)]
    pub session_seq: Option<i64>,
    /// `python`, `shell` or `plugin`.
    pub exec_type: String,
    /// What was run, where the profile's history keeps it.
    #[schema(required)]
    pub code: Option<String>,
    /// Null until it has ended.
    #[schema(required)]
    pub success: Option<bool>,
    /// How long it ran.
    #[schema(required)]
    pub execution_time_ms: Option<i64>,
    /// What it printed, where kept; at most 64 KiB.
    #[schema(required)]
    pub output: Option<String>,
    /// What went wrong, for a person.
    #[schema(required)]
    pub error: Option<String>,
    /// As the client gave it.
    #[schema(required)]
    pub description: Option<String>,
    /// As the client gave them.
    #[schema(required)]
    pub tags: Option<String>,
    /// As the client gave them.
    #[schema(required)]
    pub notes: Option<String>,
    /// The adapter that ran it.
    pub plugin: String,
    /// When it was recorded.
    #[schema(format = DateTime)]
    pub created_at: String,
}

/// A page of history, newest first.
#[derive(Debug, ToSchema)]
pub struct HistoryPage {
    /// The entries.
    pub items: Vec<HistoryEntry>,
    /// For the next page; null on the last.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// What a client notes beside an execution: absent stays, null empties.
#[derive(Debug, ToSchema)]
#[schema(example = json!({ "notes": "the one to keep" }))]
pub struct Annotation {
    /// What it was for.
    #[schema(max_length = 4096)]
    pub description: Option<String>,
    /// Separated by commas.
    #[schema(max_length = 4096)]
    pub tags: Option<String>,
    /// Anything.
    #[schema(max_length = 4096)]
    pub notes: Option<String>,
}

/// What was taken out of history.
#[derive(Debug, ToSchema)]
pub struct Cleared {
    /// `ok`
    pub status: String,
    /// How many entries.
    pub deleted: i64,
}
