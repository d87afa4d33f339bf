//! The queries of sandboxes.

use rusqlite::{Connection, Row, named_params};

use crate::auth::Tenant;
use crate::store::error::{Conflict, StoreError};
use crate::store::executions;
use crate::store::idempotency;
use crate::store::lockers::{self, LockerRow};
use crate::store::page::{Listing, Page};
use crate::store::quota::{self, Quota};
use crate::store::row::{
    Json, MAX_MESSAGE, MAX_NAME, Millis, cap, cap_all, cap_opt, clip, found, has_labels, is_live,
};
use crate::store::sessions::{self, SessionKey};

use super::{DeletedSandbox, Failure, LockerChoice, NewSandbox, SandboxFilter, SandboxRow, SessionBrief};

/// [`SandboxRow::status`] in SQL, for the list's filter; a test holds the two together.
const STATUS_SQL: &str = "CASE WHEN s.expires_at <= :now THEN 'expired' WHEN l.state IS NOT NULL THEN l.state \
     WHEN s.failure IS NOT NULL THEN 'failed' ELSE 'idle' END";

pub(super) const COLUMNS: &str = "s.id, s.tenant, s.profile, s.locker_id, s.name, s.labels, s.env, s.capabilities, \
     s.created_at, s.expires_at, s.last_active_at, s.idle_expires_at, s.session_seq, s.generation, s.failure, \
     s.deleted_at, s.idle_timeout_ms, l.id, l.generation, l.state, l.started_at";
pub(super) const FROM: &str =
    concat!("sandboxes s LEFT JOIN sessions l ON l.sandbox_id = s.id AND l.", is_live!());

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<SandboxRow> {
    let session = match row.get::<_, Option<String>>(17)? {
        Some(id) => Some(SessionBrief {
            key: SessionKey { id, generation: row.get(18)? },
            state: row.get(19)?,
            started_at: row.get(20)?,
        }),
        None => None,
    };
    Ok(SandboxRow {
        id: row.get(0)?,
        tenant: row.get(1)?,
        profile: row.get(2)?,
        locker_id: row.get(3)?,
        name: row.get(4)?,
        labels: row.get::<_, Json<_>>(5)?.0,
        env: row.get::<_, Json<_>>(6)?.0,
        capabilities: row.get::<_, Json<_>>(7)?.0,
        created_at: row.get(8)?,
        expires_at: row.get(9)?,
        last_active_at: row.get(10)?,
        idle_expires_at: row.get(11)?,
        session_seq: row.get(12)?,
        generation: row.get(13)?,
        failure: row.get::<_, Option<Json<_>>>(14)?.map(|j| j.0),
        deleted_at: row.get(15)?,
        idle_timeout_ms: row.get(16)?,
        session,
    })
}

/// A sandbox of this tenant that is not deleted.
pub(in crate::store) fn get(db: &Connection, tenant: &Tenant, id: &str) -> Result<SandboxRow, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE s.id = ?1 AND s.tenant = ?2 AND s.deleted_at IS NULL"
    ))?;
    found(query.query_row((id, tenant), read), "sandbox", id)
}

/// The same, tombstones included.
pub(in crate::store) fn get_any(
    db: &Connection,
    tenant: &Tenant,
    id: &str,
) -> Result<SandboxRow, StoreError> {
    let mut query =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE s.id = ?1 AND s.tenant = ?2"))?;
    found(query.query_row((id, tenant), read), "sandbox", id)
}

/// Sets or clears the failure, within a transition of its session.
pub(in crate::store) fn put_failure(
    db: &Connection,
    id: &str,
    failure: Option<&Failure>,
) -> Result<(), StoreError> {
    let failure = failure.map(|f| {
        let message = clip(f.message.clone(), MAX_MESSAGE);
        Json(Failure { code: clip(f.code.clone(), MAX_NAME), message, since: f.since })
    });
    db.prepare_cached("UPDATE sandboxes SET failure = ?2 WHERE id = ?1")?.execute((id, failure))?;
    Ok(())
}

/// Notes activity. Time never runs backwards here, whatever order calls end in.
pub(in crate::store) fn touch(
    db: &Connection,
    tenant: &Tenant,
    id: &str,
    at: Millis,
    idle_expires_at: Option<Millis>,
) -> Result<(), StoreError> {
    let changed = db
        .prepare_cached(
            "UPDATE sandboxes SET last_active_at = max(last_active_at, ?3), \
             idle_expires_at = CASE WHEN ?4 IS NOT NULL AND EXISTS (SELECT 1 FROM sessions l \
             WHERE l.sandbox_id = sandboxes.id AND l.state IN ('starting', 'ready')) \
             THEN max(coalesce(idle_expires_at, ?4), ?4) ELSE idle_expires_at END \
             WHERE id = ?1 AND tenant = ?2 AND deleted_at IS NULL",
        )?
        .execute((id, tenant, at, idle_expires_at))?;
    if changed == 0 {
        return Err(StoreError::NotFound { resource: "sandbox", id: id.to_owned() });
    }
    Ok(())
}

pub(super) fn insert(
    db: &Connection,
    tenant: &Tenant,
    mut new: NewSandbox,
    locker: LockerChoice,
) -> Result<(SandboxRow, LockerRow), StoreError> {
    if let Some(claim) = &new.claim
        && let Some(made) = idempotency::claim(db, tenant, claim, &new.id)?
    {
        let sandbox = get(db, tenant, &made)?;
        let locker = lockers::get(db, tenant, &sandbox.locker_id)?;
        return Ok((sandbox, locker));
    }
    cap("id", &new.id, MAX_NAME)?;
    cap("profile", &new.profile, MAX_NAME)?;
    cap_opt("name", new.name.as_ref(), MAX_NAME)?;
    cap_all("labels", new.labels.iter().flat_map(|(k, v)| [k, v]))?;
    cap_all("env", new.env.0.iter().flat_map(|(k, v)| [k, v]))?;
    cap_all("capabilities", &new.capabilities)?;
    quota::room(db, tenant, Quota::Sandboxes, 1)?;
    new.capabilities.sort();
    new.capabilities.dedup();
    let locker = match locker {
        LockerChoice::Managed(locker) => lockers::insert(db, tenant, locker, Some(&new.id))?,
        LockerChoice::Existing(id) => lockers::get_external(db, tenant, &id, new.created_at)?,
        LockerChoice::Named(name) => {
            let id = lockers::id_of_name(db, tenant, &name)?;
            lockers::get_external(db, tenant, &id, new.created_at)?
        }
    };
    let made = db
        .prepare_cached(
            "INSERT INTO sandboxes (id, tenant, profile, locker_id, name, labels, env, capabilities, \
             created_at, expires_at, last_active_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?9) ON CONFLICT DO NOTHING",
        )?
        .execute((
            &new.id,
            tenant,
            &new.profile,
            &locker.id,
            &new.name,
            Json(&new.labels),
            Json(&new.env),
            Json(&new.capabilities),
            new.created_at,
            new.expires_at,
        ))?;
    if made == 0 {
        return Err(Conflict::IdTaken.into());
    }
    Ok((get(db, tenant, &new.id)?, locker))
}

pub(super) fn list(
    db: &Connection,
    tenant: &Tenant,
    filter: &SandboxFilter,
    page: &Page,
) -> Result<Listing<SandboxRow>, StoreError> {
    let (below_at, below_id) = page.below();
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {FROM} \
         WHERE s.tenant = :tenant AND s.deleted_at IS NULL AND (s.created_at, s.id) < (:below_at, :below_id) \
         AND (:profile IS NULL OR s.profile = :profile) \
         AND (:status IS NULL OR {STATUS_SQL} = :status) \
         AND {} ORDER BY s.created_at DESC, s.id DESC LIMIT :rows",
        has_labels("s")
    ))?;
    let rows = query.query_map(
        named_params! {
            ":tenant": tenant,
            ":below_at": below_at,
            ":below_id": below_id,
            ":profile": filter.profile,
            ":status": filter.status.map(|(status, _)| status.as_str()),
            ":now": filter.status.map(|(_, now)| now),
            ":labels": Json(&filter.labels),
            ":rows": page.size() + 1,
        },
        read,
    )?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(Listing::from_rows(rows, page, |row| (row.created_at, &row.id)))
}

pub(super) fn delete(
    db: &Connection,
    tenant: &Tenant,
    id: &str,
    at: Millis,
) -> Result<DeletedSandbox, StoreError> {
    let before = get_any(db, tenant, id)?;
    let again = before.deleted_at.is_some();
    if !again {
        db.prepare_cached(
            "UPDATE sandboxes SET deleted_at = ?2, env = '{}', failure = NULL, idle_expires_at = NULL, \
             generation = generation + 1 WHERE id = ?1",
        )?
        .execute((id, at))?;
        sessions::stop_live(db, id, "the sandbox was deleted")?;
        lockers::mark_managed(db, id, at)?;
        executions::erase_some(db, id)?;
        idempotency::forget_executions(db, tenant, id)?;
    }
    let sandbox = get_any(db, tenant, id)?;
    let session = sessions::live(db, tenant, id)?;
    let locker = lockers::managed_by(db, id)?;
    Ok(DeletedSandbox { sandbox, session, locker, again })
}
