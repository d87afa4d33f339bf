//! The queries of executions.

use rusqlite::{Connection, Row};

use crate::auth::Tenant;
use crate::store::error::{Conflict, StoreError};
use crate::store::idempotency;
use crate::store::quota::{self, Quota};
use crate::store::row::{Json, MAX_NAME, MAX_SCAN, Millis, cap, cap_all, cap_opt, clip, found};
use crate::store::sandboxes;

use super::{
    CHUNK, ExecType, ExecutionRow, ExecutionStatus, FinishExecution, MAX_DESCRIPTION, MAX_RESULT, MAX_TEXT,
    NewExecution,
};

const COLUMNS: &str = "e.id, e.tenant, e.sandbox_id, e.session_seq, e.kernel_seq, e.exec_type, e.capability, \
     e.operation, e.status, e.code, e.description, e.tags, e.output, e.error, e.result, e.result_dropped, e.success, \
     e.execution_time_ms, e.plugin, e.plugin_digest, e.created_at, e.ended_at, h.notes, h.container, \
     coalesce(h.listed, 1)";
/// The same without the result: a page of results could be hundreds of megabytes.
pub(super) const BRIEF: &str = "e.id, e.tenant, e.sandbox_id, e.session_seq, e.kernel_seq, e.exec_type, e.capability, \
     e.operation, e.status, e.code, e.description, e.tags, e.output, e.error, NULL, e.result_dropped, e.success, \
     e.execution_time_ms, e.plugin, e.plugin_digest, e.created_at, e.ended_at, h.notes, h.container, \
     coalesce(h.listed, 1)";
pub(super) const FROM: &str = "executions e LEFT JOIN history h ON h.execution_id = e.id";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<ExecutionRow> {
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
        notes: row.get(22)?,
        container: row.get(23)?,
        listed: row.get(24)?,
    })
}

pub(super) fn record(db: &Connection, tenant: &Tenant, new: NewExecution) -> Result<(), StoreError> {
    for (field, text) in [
        ("id", &new.id),
        ("capability", &new.capability),
        ("operation", &new.operation),
        ("container", &new.container),
        ("plugin", &new.plugin),
        ("plugin_digest", &new.plugin_digest),
    ] {
        cap(field, text, MAX_NAME)?;
    }
    cap_opt("description", new.description.as_ref(), MAX_DESCRIPTION)?;
    cap_all("tags", &new.tags)?;
    // Also proves that the sandbox is this tenant's.
    sandboxes::touch(db, tenant, &new.sandbox_id, new.created_at, None)?;
    if let Some(claim) = &new.claim
        && idempotency::claim(db, tenant, claim, &new.id)?.is_some()
    {
        return Err(Conflict::IdTaken.into());
    }
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
    if made == 0 {
        return Err(Conflict::IdTaken.into());
    }
    db.prepare_cached(
        "INSERT INTO history (execution_id, tenant, sandbox_id, created_at, container, listed) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((&new.id, tenant, &new.sandbox_id, new.created_at, &new.container, new.listed))?;
    Ok(())
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
        Ok(sandbox_id) => {
            weigh(db, id, Some(end.ended_at))?;
            if end.frees_key {
                idempotency::free(db, tenant, id)?;
            }
            sandboxes::touch(db, tenant, &sandbox_id, end.ended_at, end.idle_expires_at)
        }
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            let mut query = db.prepare_cached("SELECT 1 FROM executions WHERE id = ?1 AND tenant = ?2")?;
            found(query.query_row((id, tenant), |_| Ok(())), "execution", id)?;
            Err(Conflict::Finished.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Notes how much an execution's record holds, and when it ended.
pub(super) fn weigh(db: &Connection, id: &str, ended_at: Option<Millis>) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE history SET ended_at = coalesce(?2, ended_at), bytes = coalesce(length(notes), 0) + \
         (SELECT coalesce(octet_length(code), 0) + coalesce(octet_length(output), 0) + \
         coalesce(octet_length(error), 0) + coalesce(octet_length(result), 0) + \
         coalesce(octet_length(description), 0) + coalesce(octet_length(tags), 0) \
         FROM executions WHERE id = ?1) WHERE execution_id = ?1",
    )?
    .execute((id, ended_at))?;
    Ok(())
}

pub(super) fn mark_lost(db: &Connection, at: Millis, reason: &str) -> Result<usize, StoreError> {
    let gone = "status = 'running' AND NOT EXISTS (SELECT 1 FROM sessions s WHERE \
         s.sandbox_id = executions.sandbox_id AND s.seq = executions.session_seq AND s.state = 'ready')";
    db.prepare_cached(&format!(
        "UPDATE history SET ended_at = ?1 WHERE execution_id IN (SELECT id FROM executions WHERE {gone})"
    ))?
    .execute([at])?;
    let lost =
        format!("UPDATE executions SET status = 'lost', success = 0, error = ?2, ended_at = ?1 WHERE {gone}");
    Ok(db.prepare_cached(&lost)?.execute((at, reason))?)
}

pub(super) fn running(db: &Connection) -> Result<Vec<ExecutionRow>, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {BRIEF} FROM {FROM} WHERE e.status = 'running' ORDER BY e.id LIMIT {MAX_SCAN}"
    ))?;
    let rows = query.query_map([], read)?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?)
}

pub(super) fn get(
    db: &Connection,
    tenant: &Tenant,
    sandbox_id: &str,
    id: &str,
) -> Result<ExecutionRow, StoreError> {
    sandboxes::get(db, tenant, sandbox_id)?;
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE e.id = ?1 AND e.sandbox_id = ?2 AND e.tenant = ?3"
    ))?;
    found(query.query_row((id, sandbox_id, tenant), read), "execution", id)
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
