//! Executions: an intent before anything is dispatched, one result after. Rows are history, too.

use rusqlite::{Connection, Row, named_params};
use serde::{Deserialize, Serialize};

use crate::auth::{SystemContext, Tenant};

use super::error::{Conflict, StoreError};
use super::page::{Listing, Page};
use super::row::{Json, MAX_NAME, Millis, cap, cap_all, cap_opt, clip, found, text_enum};
use super::{Store, sandboxes};

/// Code, output and error are kept to this many bytes an entry; the rest is cut off.
pub(super) const MAX_TEXT: usize = 64 << 10;
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
    /// The adapter that runs it.
    pub plugin: String,
    /// Its digest.
    pub plugin_digest: String,
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
}

/// What a history is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct ExecutionFilter {
    /// Only this kind.
    pub exec_type: Option<ExecType>,
    /// Only those that ended well.
    pub success_only: bool,
    /// Only those with exactly these tags.
    pub tags: Option<String>,
    /// Only those with (true) or without (false) a description.
    pub has_description: Option<bool>,
}

/// What history is pruned to.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// Ended executions recorded before this go.
    pub before: Millis,
    /// Newest ended executions a sandbox keeps.
    pub per_sandbox: u32,
}

const COLUMNS: &str = "id, tenant, sandbox_id, session_seq, kernel_seq, exec_type, capability, operation, \
     status, code, description, tags, output, error, result, result_dropped, success, execution_time_ms, \
     plugin, plugin_digest, created_at, ended_at";

fn read(row: &Row<'_>) -> rusqlite::Result<ExecutionRow> {
    Ok(ExecutionRow {
        id: row.get(0)?,
        tenant: row.get(1)?,
        sandbox_id: row.get(2)?,
        session_seq: row.get(3)?,
        kernel_seq: row.get(4)?,
        exec_type: row.get(5)?,
        capability: row.get(6)?,
        operation: row.get(7)?,
        status: row.get(8)?,
        code: row.get(9)?,
        description: row.get(10)?,
        tags: row.get(11)?,
        output: row.get(12)?,
        error: row.get(13)?,
        result: row.get::<_, Option<Json<_>>>(14)?.map(|j| j.0),
        result_dropped: row.get(15)?,
        success: row.get(16)?,
        execution_time_ms: row.get(17)?,
        plugin: row.get(18)?,
        plugin_digest: row.get(19)?,
        created_at: row.get(20)?,
        ended_at: row.get(21)?,
    })
}

fn record(db: &Connection, tenant: &Tenant, new: NewExecution) -> Result<(), StoreError> {
    for (field, text) in [
        ("id", &new.id),
        ("capability", &new.capability),
        ("operation", &new.operation),
        ("plugin", &new.plugin),
        ("plugin_digest", &new.plugin_digest),
    ] {
        cap(field, text, MAX_NAME)?;
    }
    cap_opt("description", new.description.as_ref(), MAX_DESCRIPTION)?;
    cap_all("tags", &new.tags)?;
    // Also proves that the sandbox is this tenant's.
    sandboxes::touch(db, tenant, &new.sandbox_id, new.created_at, None)?;
    let made = db
        .prepare_cached(
            "INSERT INTO executions (id, tenant, sandbox_id, session_seq, exec_type, capability, operation, \
             status, code, description, tags, plugin, plugin_digest, created_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'running', ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT DO NOTHING",
        )?
        .execute((
            &new.id,
            tenant,
            &new.sandbox_id,
            new.session_seq,
            ExecType::of(&new.capability),
            &new.capability,
            &new.operation,
            new.code.map(|t| clip(t, MAX_TEXT)),
            new.description,
            new.tags,
            &new.plugin,
            &new.plugin_digest,
            new.created_at,
        ))?;
    if made == 0 { Err(Conflict::IdTaken.into()) } else { Ok(()) }
}

/// The result as text, or that it is too large to keep.
fn bounded(result: Option<&serde_json::Value>) -> Result<(Option<String>, bool), StoreError> {
    let Some(result) = result else { return Ok((None, false)) };
    let text = serde_json::to_string(result).map_err(|e| StoreError::Internal { reason: e.to_string() })?;
    Ok(if text.len() > MAX_RESULT { (None, true) } else { (Some(text), false) })
}

fn finish(db: &Connection, tenant: &Tenant, id: &str, end: FinishExecution) -> Result<(), StoreError> {
    if end.status == ExecutionStatus::Running {
        return Err(StoreError::Internal { reason: "an end that is no end".into() });
    }
    let (result, dropped) = bounded(end.result.as_ref())?;
    let sandbox_id = db
        .prepare_cached(
            "UPDATE executions SET status = ?3, session_seq = coalesce(?4, session_seq), kernel_seq = ?5, \
             output = ?6, error = ?7, result = ?8, result_dropped = ?9, success = ?10, execution_time_ms = ?11, \
             ended_at = ?12 WHERE id = ?1 AND tenant = ?2 AND status = 'running' RETURNING sandbox_id",
        )?
        .query_row(
            (
                id,
                tenant,
                end.status,
                end.session_seq,
                end.kernel_seq,
                end.output.map(|t| clip(t, MAX_TEXT)),
                end.error.map(|t| clip(t, MAX_TEXT)),
                result,
                dropped,
                end.success,
                end.execution_time_ms,
                end.ended_at,
            ),
            |row| row.get::<_, String>(0),
        );
    match sandbox_id {
        Ok(sandbox_id) => sandboxes::touch(db, tenant, &sandbox_id, end.ended_at, end.idle_expires_at),
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            let mut query = db.prepare_cached("SELECT 1 FROM executions WHERE id = ?1 AND tenant = ?2")?;
            found(query.query_row((id, tenant), |_| Ok(())), "execution", id)?;
            Err(Conflict::Finished.into())
        }
        Err(error) => Err(error.into()),
    }
}

fn get(db: &Connection, tenant: &Tenant, sandbox_id: &str, id: &str) -> Result<ExecutionRow, StoreError> {
    sandboxes::get(db, tenant, sandbox_id)?;
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM executions WHERE id = ?1 AND sandbox_id = ?2 AND tenant = ?3"
    ))?;
    found(query.query_row((id, sandbox_id, tenant), read), "execution", id)
}

fn list(
    db: &Connection,
    tenant: &Tenant,
    sandbox_id: &str,
    filter: &ExecutionFilter,
    page: &Page,
) -> Result<Listing<ExecutionRow>, StoreError> {
    sandboxes::get(db, tenant, sandbox_id)?;
    let (below_at, below_id) = page.below();
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM executions WHERE sandbox_id = :sandbox AND tenant = :tenant \
         AND (created_at, id) < (:below_at, :below_id) \
         AND (:exec_type IS NULL OR exec_type = :exec_type) AND (NOT :success_only OR success = 1) \
         AND (:tags IS NULL OR tags = :tags) \
         AND (:described IS NULL OR (description IS NOT NULL) = :described) \
         ORDER BY created_at DESC, id DESC LIMIT :rows"
    ))?;
    let rows = query.query_map(
        named_params! {
            ":sandbox": sandbox_id,
            ":tenant": tenant,
            ":below_at": below_at,
            ":below_id": below_id,
            ":exec_type": filter.exec_type,
            ":success_only": filter.success_only,
            ":tags": filter.tags,
            ":described": filter.has_description,
            ":rows": page.size() + 1,
        },
        read,
    )?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(Listing::from_rows(rows, page, |row| (row.created_at, &row.id)))
}

/// Erases some of a deleted sandbox's executions at once; [`Store::erase_deleted_executions`] takes the rest.
pub(super) fn erase_some(db: &Connection, sandbox_id: &str) -> Result<(), StoreError> {
    db.prepare_cached(&format!(
        "DELETE FROM executions WHERE rowid IN \
         (SELECT rowid FROM executions WHERE sandbox_id = ?1 LIMIT {CHUNK})"
    ))?
    .execute([sandbox_id])?;
    Ok(())
}

impl Store {
    /// Writes the intent to run something. Nothing may be dispatched before this answers.
    pub async fn record_execution(&self, tenant: &Tenant, new: NewExecution) -> Result<(), StoreError> {
        let owner = tenant.clone();
        self.write(tenant, move |db| record(db, &owner, new)).await
    }

    /// Writes the end of a running execution. A second end is [`Conflict::Finished`]; not found once its sandbox
    /// was deleted.
    pub async fn finish_execution(
        &self,
        tenant: &Tenant,
        id: &str,
        end: FinishExecution,
    ) -> Result<(), StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write(tenant, move |db| finish(db, &owner, &id, end)).await
    }

    /// One execution of a sandbox.
    pub async fn get_execution(
        &self,
        tenant: &Tenant,
        sandbox_id: &str,
        id: &str,
    ) -> Result<ExecutionRow, StoreError> {
        let (owner, sandbox_id, id) = (tenant.clone(), sandbox_id.to_owned(), id.to_owned());
        self.read(tenant, move |db| get(db, &owner, &sandbox_id, &id)).await
    }

    /// Executions of a sandbox, newest first.
    pub async fn list_executions(
        &self,
        tenant: &Tenant,
        sandbox_id: &str,
        filter: ExecutionFilter,
        page: Page,
    ) -> Result<Listing<ExecutionRow>, StoreError> {
        let (owner, sandbox_id) = (tenant.clone(), sandbox_id.to_owned());
        self.read(tenant, move |db| list(db, &owner, &sandbox_id, &filter, &page)).await
    }

    /// At start-up, before anything is dispatched: what was running had a Bay that is gone. Answers how many.
    pub async fn mark_executions_lost(
        &self,
        system: &SystemContext,
        at: Millis,
        reason: &str,
    ) -> Result<usize, StoreError> {
        let reason = reason.to_owned();
        self.write(system, move |db| {
            Ok(db
                .prepare_cached(
                    "UPDATE executions SET status = 'lost', success = 0, error = ?2, ended_at = ?1 \
                     WHERE status = 'running'",
                )?
                .execute((at, reason))?)
        })
        .await
    }

    /// Erases executions of deleted sandboxes, some at a time. Answers how many; call again until it is 0.
    pub async fn erase_deleted_executions(&self, system: &SystemContext) -> Result<usize, StoreError> {
        self.write(system, |db| {
            Ok(db
                .prepare_cached(&format!(
                    "DELETE FROM executions WHERE rowid IN (SELECT e.rowid FROM sandboxes s \
                     JOIN executions e ON e.sandbox_id = s.id WHERE s.deleted_at IS NOT NULL LIMIT {CHUNK})"
                ))?
                .execute([])?)
        })
        .await
    }

    /// Forgets ended executions that are too old or too many, some at a time. Answers how many; call again until
    /// it is 0.
    pub async fn prune_executions(
        &self,
        system: &SystemContext,
        limits: HistoryLimits,
    ) -> Result<usize, StoreError> {
        self.write(system, move |db| {
            Ok(db
                .prepare_cached(&format!(
                    "DELETE FROM executions WHERE rowid IN (\
                     SELECT rowid FROM (SELECT rowid, created_at, status, row_number() OVER \
                     (PARTITION BY sandbox_id ORDER BY created_at DESC, id DESC) AS place FROM executions) \
                     WHERE status <> 'running' AND (created_at < ?1 OR place > ?2) LIMIT {CHUNK})"
                ))?
                .execute((limits.before, limits.per_sandbox))?)
        })
        .await
    }
}
