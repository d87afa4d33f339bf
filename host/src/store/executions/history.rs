//! Executions as history: pages of them, what people add, what is kept.

use rusqlite::{Connection, named_params};

use super::sql::{BRIEF, FROM, get, read, weigh};
use super::{CHUNK, ExecType, ExecutionRow, MAX_DESCRIPTION};
use crate::auth::{SystemContext, Tenant};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::page::{Listing, Page};
use crate::store::row::{Json, Millis, cap_opt};
use crate::store::{idempotency, sandboxes};

/// Longest notes.
const MAX_NOTES: usize = 16 << 10;
/// Longest tags: as when an execution is made.
const MAX_TAGS: usize = 4 << 10;
/// Most bytes of text in a page, which then ends before its time; one entry it has in any case.
const MAX_PAGE: usize = 4 << 20;

/// What a history is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct ExecutionFilter {
    /// Only this kind.
    pub exec_type: Option<ExecType>,
    /// Only those that ended well.
    pub success_only: bool,
    /// Only those with each of these among their tags, which a comma separates.
    pub tags: Vec<String>,
    /// Only those with (true) or without (false) notes.
    pub has_notes: Option<bool>,
    /// Only those with (true) or without (false) a description.
    pub has_description: Option<bool>,
}

/// What people change of an execution: none leaves a field, null empties it.
#[derive(Debug, Clone, Default)]
pub struct Annotation {
    /// What it was for.
    pub description: Option<Option<String>>,
    /// Words, separated by commas.
    pub tags: Option<Option<String>>,
    /// Anything.
    pub notes: Option<Option<String>>,
}

/// What history is pruned to. Only what has ended goes.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// Executions recorded before this go.
    pub before: Millis,
    /// Newest executions a sandbox keeps.
    pub per_sandbox: u32,
    /// Bytes a sandbox keeps, newest first.
    pub sandbox_bytes: u64,
    /// Bytes a tenant keeps, newest first.
    pub tenant_bytes: u64,
    /// Executions that no history shows go when they ended before this.
    pub unlisted_before: Millis,
}

impl Store {
    /// What a sandbox's history shows, newest first, without results.
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

    /// Changes what people say of an execution, and answers with it.
    pub async fn annotate_execution(
        &self,
        tenant: &Tenant,
        sandbox_id: &str,
        id: &str,
        annotation: Annotation,
    ) -> Result<ExecutionRow, StoreError> {
        let (owner, sandbox_id, id) = (tenant.clone(), sandbox_id.to_owned(), id.to_owned());
        self.write(tenant, move |db| annotate(db, &owner, &sandbox_id, &id, &annotation)).await
    }

    /// Forgets ended executions of a sandbox, some at a time. Answers how many; call again until it is 0.
    pub async fn clear_history(&self, tenant: &Tenant, sandbox_id: &str) -> Result<usize, StoreError> {
        let (owner, sandbox_id) = (tenant.clone(), sandbox_id.to_owned());
        self.write(tenant, move |db| {
            sandboxes::get(db, &owner, &sandbox_id)?;
            idempotency::forget_executions(db, &owner, &sandbox_id)?;
            Ok(db
                .prepare_cached(&format!(
                    "DELETE FROM executions WHERE rowid IN (SELECT rowid FROM executions \
                     WHERE sandbox_id = ?1 AND tenant = ?2 AND status <> 'running' LIMIT {CHUNK})"
                ))?
                .execute((&sandbox_id, &owner))?)
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

    /// Forgets ended executions that are too old, too many or too large, some at a time. Answers how many; call again
    /// until it is 0.
    pub async fn prune_executions(
        &self,
        system: &SystemContext,
        limits: HistoryLimits,
    ) -> Result<usize, StoreError> {
        self.write(system, move |db| {
            Ok(db
                .prepare_cached(&format!(
                    "DELETE FROM executions WHERE id IN (SELECT execution_id FROM (\
                     SELECT execution_id, created_at, ended_at, listed, row_number() OVER here AS place, \
                     sum(bytes) OVER here AS in_sandbox, sum(bytes) OVER owned AS of_tenant FROM history \
                     WINDOW here AS (PARTITION BY sandbox_id ORDER BY created_at DESC, execution_id DESC), \
                     owned AS (PARTITION BY tenant ORDER BY created_at DESC, execution_id DESC)) \
                     WHERE ended_at IS NOT NULL AND (created_at < ?1 OR place > ?2 OR in_sandbox > ?3 \
                     OR of_tenant > ?4 OR (NOT listed AND ended_at < ?5)) LIMIT {CHUNK})"
                ))?
                .execute((
                    limits.before,
                    limits.per_sandbox,
                    signed(limits.sandbox_bytes),
                    signed(limits.tenant_bytes),
                    limits.unlisted_before,
                ))?)
        })
        .await
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
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
        "SELECT {BRIEF} FROM {FROM} WHERE e.sandbox_id = :sandbox AND e.tenant = :tenant \
         AND (e.created_at, e.id) < (:below_at, :below_id) AND coalesce(h.listed, 1) \
         AND (:exec_type IS NULL OR e.exec_type = :exec_type) AND (NOT :success_only OR e.success = 1) \
         AND NOT EXISTS (SELECT 1 FROM json_each(:tags) w WHERE \
         instr(',' || replace(coalesce(e.tags, ''), ', ', ',') || ',', ',' || w.value || ',') = 0) \
         AND (:noted IS NULL OR (h.notes IS NOT NULL) = :noted) \
         AND (:described IS NULL OR (e.description IS NOT NULL) = :described) \
         ORDER BY e.created_at DESC, e.id DESC LIMIT :rows"
    ))?;
    let mut found = query.query(named_params! {
        ":sandbox": sandbox_id,
        ":tenant": tenant,
        ":below_at": below_at,
        ":below_id": below_id,
        ":exec_type": filter.exec_type,
        ":success_only": filter.success_only,
        ":tags": Json(&filter.tags),
        ":noted": filter.has_notes,
        ":described": filter.has_description,
        ":rows": page.size() + 1,
    })?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let row = read(row)?;
        bytes += weight(&row);
        if bytes > MAX_PAGE && !rows.is_empty() {
            let shorter = Page { limit: u32::try_from(rows.len()).unwrap_or(u32::MAX), ..page.clone() };
            rows.push(row);
            return Ok(Listing::from_rows(rows, &shorter, |row| (row.created_at, &row.id)));
        }
        rows.push(row);
    }
    Ok(Listing::from_rows(rows, page, |row| (row.created_at, &row.id)))
}

/// Bytes of an entry's texts.
fn weight(row: &ExecutionRow) -> usize {
    let texts = [&row.code, &row.output, &row.error, &row.description, &row.tags, &row.notes];
    texts.into_iter().flatten().map(String::len).sum()
}

fn annotate(
    db: &Connection,
    tenant: &Tenant,
    sandbox_id: &str,
    id: &str,
    annotation: &Annotation,
) -> Result<ExecutionRow, StoreError> {
    let Annotation { description, tags, notes } = annotation;
    cap_opt("description", description.as_ref().and_then(Option::as_ref), MAX_DESCRIPTION)?;
    cap_opt("notes", notes.as_ref().and_then(Option::as_ref), MAX_NOTES)?;
    cap_opt("tags", tags.as_ref().and_then(Option::as_ref), MAX_TAGS)?;
    // Also proves that it is this tenant's.
    get(db, tenant, sandbox_id, id)?;
    db.prepare_cached(
        "UPDATE executions SET description = iif(?2, ?3, description), tags = iif(?4, ?5, tags) WHERE id = ?1",
    )?
    .execute((id, description.is_some(), description, tags.is_some(), tags))?;
    db.prepare_cached("UPDATE history SET notes = iif(?2, ?3, notes) WHERE execution_id = ?1")?.execute((
        id,
        notes.is_some(),
        notes,
    ))?;
    weigh(db, id, None)?;
    get(db, tenant, sandbox_id, id)
}
