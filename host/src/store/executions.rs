//! Executions: an intent before anything is dispatched, one result after. Rows are history, too.

mod history;
mod sql;

use serde::{Deserialize, Serialize};

use crate::auth::{SystemContext, Tenant};

use super::Store;
use super::error::StoreError;
use super::idempotency::Claim;
use super::row::{Millis, text_enum};
use super::worker::Outlives;

pub use history::{Annotation, ExecutionFilter, HistoryLimits};
pub(super) use sql::erase_some;
use sql::{finish, get, mark_lost, record, running};

/// Code, output and error are kept to this many bytes an entry; the rest is cut off.
const MAX_TEXT: usize = 64 << 10;
/// Largest result kept; a larger one is dropped whole and the row says so. Images make results large.
const MAX_RESULT: usize = 4 << 20;
/// Longest description.
const MAX_DESCRIPTION: usize = 4 << 10;
/// Most rows erased or pruned in one transaction, so that other writers wait little.
const CHUNK: usize = 500;

/// What kind of work, as history filters by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecType {
    /// Capability `python`.
    Python,
    /// Capability `shell`.
    Shell,
    /// Any other.
    Plugin,
}

text_enum!(ExecType { Python = "python", Shell = "shell", Plugin = "plugin" });

impl ExecType {
    /// Of a capability.
    pub fn of(capability: &str) -> Self {
        match capability {
            "python" => Self::Python,
            "shell" => Self::Shell,
            _ => Self::Plugin,
        }
    }
}

/// How an execution stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionStatus {
    /// Recorded, perhaps dispatched, no end known.
    Running,
    /// It ended well.
    Succeeded,
    /// It ran and failed inside the sandbox: an exception, a non-zero exit, the user's own timeout.
    Failed,
    /// It could not be run to an end: a rule, a plugin, the runtime.
    Error,
    /// Bay was gone when it ended.
    Lost,
}

text_enum!(ExecutionStatus {
    Running = "running",
    Succeeded = "succeeded",
    Failed = "failed",
    Error = "error",
    Lost = "lost",
});

/// An execution as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionRow {
    /// `exe_…`
    pub id: String,
    /// Its owner.
    pub tenant: Tenant,
    /// Where it ran.
    pub sandbox_id: String,
    /// In which session; null until known.
    pub session_seq: Option<u64>,
    /// In which kernel; null but for Python.
    pub kernel_seq: Option<u64>,
    /// What kind of work.
    pub exec_type: ExecType,
    /// The capability called.
    pub capability: String,
    /// The operation called.
    pub operation: String,
    /// How it stands.
    pub status: ExecutionStatus,
    /// What was run, where the profile's history keeps it; at most 64 KiB.
    pub code: Option<String>,
    /// Given by the client.
    pub description: Option<String>,
    /// Given by the client.
    pub tags: Option<String>,
    /// What it printed, where kept; at most 64 KiB.
    pub output: Option<String>,
    /// What went wrong, for a person; at most 64 KiB.
    pub error: Option<String>,
    /// The whole answer, where kept.
    pub result: Option<serde_json::Value>,
    /// The answer was too large to keep.
    pub result_dropped: bool,
    /// As the answer says; null until it ended.
    pub success: Option<bool>,
    /// As the answer says.
    pub execution_time_ms: Option<u64>,
    /// The adapter that ran it.
    pub plugin: String,
    /// Its digest.
    pub plugin_digest: String,
    /// When it was recorded.
    pub created_at: Millis,
    /// When its end was recorded.
    pub ended_at: Option<Millis>,
    /// Added by the client since.
    pub notes: Option<String>,
    /// The container of the session that it ran in; null for one of an older Bay.
    pub container: Option<String>,
    /// Whether history shows it.
    pub listed: bool,
}

/// The intent to run something.
#[derive(Debug, Clone)]
pub struct NewExecution {
    /// From [`crate::id::Kind::Execution`].
    pub id: String,
    /// Where it is to run.
    pub sandbox_id: String,
    /// In which session, when known by now.
    pub session_seq: Option<u64>,
    /// The capability called.
    pub capability: String,
    /// The operation called.
    pub operation: String,
    /// What is to run; null where the profile's history does not keep it.
    pub code: Option<String>,
    /// Given by the client.
    pub description: Option<String>,
    /// Given by the client.
    pub tags: Option<String>,
    /// The container of the session that it is to run in.
    pub container: String,
    /// Whether history shows it.
    pub listed: bool,
    /// The adapter that runs it.
    pub plugin: String,
    /// Its digest.
    pub plugin_digest: String,
    /// The key of the request that asks for it, where it has one: noted in the same transaction.
    pub claim: Option<Claim>,
    /// Now; also noted as the sandbox's last activity.
    pub created_at: Millis,
}

/// The end of an execution.
#[derive(Debug, Clone)]
pub struct FinishExecution {
    /// Anything but `Running`.
    pub status: ExecutionStatus,
    /// In which session it ran.
    pub session_seq: Option<u64>,
    /// In which kernel.
    pub kernel_seq: Option<u64>,
    /// What it printed; null where the profile's history does not keep it.
    pub output: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// The whole answer; null where not kept.
    pub result: Option<serde_json::Value>,
    /// As the answer says.
    pub success: bool,
    /// As the answer says.
    pub execution_time_ms: Option<u64>,
    /// Now; also noted as the sandbox's last activity.
    pub ended_at: Millis,
    /// Moves the sandbox's idle time in the same write; null: leaves it.
    pub idle_expires_at: Option<Millis>,
    /// Nothing ran, and the same request may succeed later: its Idempotency-Key is as if it had not been used.
    pub frees_key: bool,
}

impl Store {
    /// Writes the intent to run something. Nothing may be dispatched before this answers. It outlives Bay, not a
    /// power failure, which ends the work as well.
    pub async fn record_execution(&self, tenant: &Tenant, new: NewExecution) -> Result<(), StoreError> {
        let owner = tenant.clone();
        self.write_to_outlive(Outlives::Bay, tenant, move |db| record(db, &owner, new)).await
    }

    /// Writes the end of a running execution. A second end is [`Conflict::Finished`]; not found once its sandbox
    /// was deleted. Outlives what its intent does.
    pub async fn finish_execution(
        &self,
        tenant: &Tenant,
        id: &str,
        end: FinishExecution,
    ) -> Result<(), StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write_to_outlive(Outlives::Bay, tenant, move |db| finish(db, &owner, &id, end)).await
    }

    /// One execution of a sandbox.
    pub async fn get_execution(
        &self,
        tenant: &Tenant,
        sandbox_id: &str,
        id: &str,
    ) -> Result<ExecutionRow, StoreError> {
        let (owner, sandbox_id, id) = (tenant.clone(), sandbox_id.to_owned(), id.to_owned());
        self.read_row(tenant, move |db| get(db, &owner, &sandbox_id, &id)).await
    }

    /// Notes in which session it runs, where that was not known when its intent was written.
    pub async fn place_execution(
        &self,
        tenant: &Tenant,
        id: &str,
        session_seq: u64,
    ) -> Result<(), StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write_to_outlive(Outlives::Bay, tenant, move |db| {
            db.prepare_cached(
                "UPDATE executions SET session_seq = ?3 WHERE id = ?1 AND tenant = ?2 AND status = 'running'",
            )?
            .execute((id, &owner, session_seq))?;
            Ok(())
        })
        .await
    }

    /// At start-up, before anything is dispatched: what was running where no session is left had a Bay that is gone.
    /// Answers how many. The others may go on in their sessions: [`Store::list_running_executions`].
    pub async fn mark_executions_lost(
        &self,
        system: &SystemContext,
        at: Millis,
        reason: &str,
    ) -> Result<usize, StoreError> {
        let reason = reason.to_owned();
        self.write(system, move |db| mark_lost(db, at, &reason)).await
    }

    /// What is recorded as running, of all tenants; at most ten thousand, oldest first.
    pub async fn list_running_executions(
        &self,
        system: &SystemContext,
    ) -> Result<Vec<ExecutionRow>, StoreError> {
        self.read(system, running).await
    }
}
