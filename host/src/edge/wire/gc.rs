//! `POST /v1/admin/gc/run` and `GET /v1/admin/gc/status`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::background::{Task, TaskReport};
use crate::error::{ApiError, ApiResult};

/// The tasks that a body asks for; all of them where it names none.
pub fn gc_tasks(body: &Value) -> ApiResult<Vec<Task>> {
    let names = Task::ALL.map(Task::as_str).join(", ");
    match body.get("tasks").filter(|tasks| !tasks.is_null()) {
        None => Ok(Task::ALL.to_vec()),
        Some(Value::Array(list)) if list.len() <= 2 * Task::ALL.len() => list
            .iter()
            .map(|name| name.as_str().and_then(Task::parse))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| ApiError::field("tasks", format!("each must be one of {names}"))),
        Some(_) => Err(ApiError::field("tasks", format!("must be a list of {names}"))),
    }
}

/// What one task did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GcTask {
    /// Its name.
    #[schema(example = "expired_sandbox")]
    task_name: &'static str,
    /// How much it removed or ended.
    cleaned_count: usize,
    /// How much it saw whose time has not come.
    skipped_count: usize,
    /// What it could not do; it is tried again at its time.
    errors: Vec<String>,
}

/// What a run did.
#[derive(Debug, Serialize, ToSchema)]
pub struct GcRun {
    /// Task by task, in the order they ran.
    results: Vec<GcTask>,
    /// The sum of `cleaned_count`.
    total_cleaned: usize,
    /// How many errors there are.
    total_errors: usize,
    /// How long it took, milliseconds.
    duration_ms: u64,
}

impl GcRun {
    /// From what the background says.
    pub fn of(reports: Vec<TaskReport>, took: Duration) -> Self {
        let results: Vec<_> = reports
            .into_iter()
            .map(|report| GcTask {
                task_name: report.task.as_str(),
                cleaned_count: report.cleaned,
                skipped_count: report.skipped,
                errors: report.errors,
            })
            .collect();
        Self {
            total_cleaned: results.iter().map(|r| r.cleaned_count).sum(),
            total_errors: results.iter().map(|r| r.errors.len()).sum(),
            results,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Whether a task is done at its time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GcTaskStatus {
    enabled: bool,
}

/// How housekeeping stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct GcStatus {
    /// Always true: it cannot be turned off.
    enabled: bool,
    /// Whether it is being done right now.
    is_running: bool,
    /// Which Bay this is.
    #[schema(example = "3f9c01ab")]
    instance_id: String,
    /// How often it is done.
    #[schema(example = 60)]
    interval_seconds: u64,
    /// Every task.
    tasks: BTreeMap<&'static str, GcTaskStatus>,
}

impl GcStatus {
    /// Of a Bay that does it every `interval`.
    pub fn of(instance_id: &str, interval: Duration, is_running: bool) -> Self {
        Self {
            enabled: true,
            is_running,
            instance_id: instance_id.to_owned(),
            interval_seconds: interval.as_secs(),
            tasks: Task::ALL.map(|task| (task.as_str(), GcTaskStatus { enabled: true })).into(),
        }
    }
}
