//! The queries of executions.

use rusqlite::{Connection, Row, named_params};

use crate::auth::Tenant;
use crate::store::error::{Conflict, StoreError};
use crate::store::page::{Listing, Page};
use crate::store::quota::{self, Quota};
use crate::store::row::{Json, MAX_NAME, cap, cap_all, cap_opt, clip, found};
use crate::store::sandboxes;

use super::{
    CHUNK, ExecType, ExecutionFilter, ExecutionRow, ExecutionStatus, FinishExecution, MAX_DESCRIPTION,
    MAX_RESULT, MAX_TEXT, NewExecution,
};

const COLUMNS: &str = "id, tenant, sandbox_id, session_seq, kernel_seq, exec_type, capability, operation, \
     status, code, description, tags, output, error, result, result_dropped, success, execution_time_ms, \
     plugin, plugin_digest, created_at, ended_at";
/// The same without the result: a page of results could be hundreds of megabytes.
const BRIEF: &str = "id, tenant, sandbox_id, session_seq, kernel_seq, exec_type, capability, operation, \
     status, code, description, tags, output, error, NULL, result_dropped, success, execution_time_ms, \
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

pub(super) fn record(db: &Connection, tenant: &Tenant, new: NewExecution) -> Result<(), StoreError> {
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
    quota::room(db, tenant, Quota::Executions, 1)?;
    quota::room(db, tenant, Quota::HistoryBytes, 1)?;
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

pub(super) fn finish(
    db: &Connection,
    tenant: &Tenant,
    id: &str,
    end: FinishExecution,
) -> Result<(), StoreError> {
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

pub(super) fn get(
    db: &Connection,
    tenant: &Tenant,
    sandbox_id: &str,
    id: &str,
) -> Result<ExecutionRow, StoreError> {
    sandboxes::get(db, tenant, sandbox_id)?;
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM executions WHERE id = ?1 AND sandbox_id = ?2 AND tenant = ?3"
    ))?;
    found(query.query_row((id, sandbox_id, tenant), read), "execution", id)
}

pub(super) fn list(
    db: &Connection,
    tenant: &Tenant,
    sandbox_id: &str,
    filter: &ExecutionFilter,
    page: &Page,
) -> Result<Listing<ExecutionRow>, StoreError> {
    sandboxes::get(db, tenant, sandbox_id)?;
    let (below_at, below_id) = page.below();
    let mut query = db.prepare_cached(&format!(
        "SELECT {BRIEF} FROM executions WHERE sandbox_id = :sandbox AND tenant = :tenant \
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
pub(in crate::store) fn erase_some(db: &Connection, sandbox_id: &str) -> Result<(), StoreError> {
    db.prepare_cached(&format!(
        "DELETE FROM executions WHERE rowid IN \
         (SELECT rowid FROM executions WHERE sandbox_id = ?1 LIMIT {CHUNK})"
    ))?
    .execute([sandbox_id])?;
    Ok(())
}
