//! The queries of sessions.

use rusqlite::{Connection, OptionalExtension, Row};

use crate::auth::Tenant;
use crate::id::{Kind, container_name};
use crate::store::error::{Conflict, StoreError};
use crate::store::quota::{self, Quota};
use crate::store::row::{Json, LIVE, MAX_MESSAGE, MAX_NAME, MAX_SCAN, Millis, cap, cap_all, clip, found};
use crate::store::{lockers, sandboxes};

use super::{ContainerRow, MAX_CONTAINERS, NewContainer, SessionKey, SessionRow, SessionState, Transition};

pub(super) const COLUMNS: &str = "id, sandbox_id, tenant, seq, generation, state, started_at, ended_at, reason, \
     containers, cleaned_at";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: row.get(0)?,
        sandbox_id: row.get(1)?,
        tenant: row.get(2)?,
        seq: row.get(3)?,
        generation: row.get(4)?,
        state: row.get(5)?,
        started_at: row.get(6)?,
        ended_at: row.get(7)?,
        reason: row.get(8)?,
        containers: row.get::<_, Json<_>>(9)?.0,
        cleaned_at: row.get(10)?,
    })
}

pub(super) fn get(db: &Connection, tenant: &Tenant, id: &str) -> Result<SessionRow, StoreError> {
    let mut query =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1 AND tenant = ?2"))?;
    found(query.query_row((id, tenant), read), "session", id)
}

/// The live session of a sandbox.
pub(in crate::store) fn live(
    db: &Connection,
    tenant: &Tenant,
    sandbox_id: &str,
) -> Result<Option<SessionRow>, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM sessions WHERE sandbox_id = ?1 AND tenant = ?2 AND {LIVE}"
    ))?;
    Ok(query.query_row((sandbox_id, tenant), read).optional()?)
}

/// Marks the live session of a sandbox as stopping, within its deletion.
pub(in crate::store) fn stop_live(db: &Connection, sandbox_id: &str, reason: &str) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE sessions SET state = 'stopping', reason = ?2 \
         WHERE sandbox_id = ?1 AND state IN ('starting', 'ready')",
    )?
    .execute((sandbox_id, reason))?;
    Ok(())
}

pub(super) fn begin(
    db: &Connection,
    tenant: &Tenant,
    sandbox_id: &str,
    new: Vec<NewContainer>,
    at: Millis,
) -> Result<SessionRow, StoreError> {
    if new.len() > MAX_CONTAINERS {
        return Err(StoreError::TooLarge { field: "containers", max: MAX_CONTAINERS });
    }
    let sandbox = if Kind::Files.is(sandbox_id) {
        lockers::files::startable(db, tenant, sandbox_id)?
    } else {
        sandboxes::get(db, tenant, sandbox_id)?
    };
    if sandbox.session.is_some() {
        return Err(Conflict::SessionLive.into());
    }
    if let Some(expires_at) = sandbox.expires_at.filter(|expires_at| *expires_at <= at) {
        return Err(Conflict::Expired { expires_at }.into());
    }
    // What serves a locker's files has bounds of its own.
    if !Kind::Files.is(sandbox_id) {
        quota::room(db, tenant, Quota::Running, 1)?;
        quota::room(db, tenant, Quota::Starting, 1)?;
    }
    let id = Kind::Session.mint();
    let (seq, generation) = (sandbox.session_seq + 1, sandbox.generation + 1);
    let mut containers = Vec::with_capacity(new.len());
    for c in new {
        for (field, text) in [("role", &c.role), ("adapter", &c.adapter)] {
            cap(field, text, MAX_NAME)?;
        }
        cap_all("capabilities", c.capabilities.iter().chain(&c.primary_for))?;
        containers.push(ContainerRow {
            name: container_name(&id, generation, &c.role),
            role: c.role,
            container_ref: None,
            adapter: c.adapter,
            port: c.port,
            capabilities: c.capabilities,
            primary_for: c.primary_for,
        });
    }
    db.prepare_cached(
        "UPDATE sandboxes SET session_seq = ?2, generation = ?3, idle_expires_at = NULL WHERE id = ?1",
    )?
    .execute((sandbox_id, seq, generation))?;
    db.prepare_cached(
        "INSERT INTO sessions (id, sandbox_id, tenant, seq, generation, state, started_at, containers) \
         VALUES (?1, ?2, ?3, ?4, ?5, 'starting', ?6, ?7)",
    )?
    .execute((&id, sandbox_id, tenant, seq, generation, at, Json(&containers)))?;
    get(db, tenant, &id)
}

/// The session in that generation and live, or [`Conflict::Stale`].
pub(super) fn get_current(
    db: &Connection,
    tenant: &Tenant,
    key: &SessionKey,
) -> Result<SessionRow, StoreError> {
    let session = get(db, tenant, &key.id)?;
    if session.generation != key.generation || !session.state.is_live() {
        return Err(Conflict::Stale.into());
    }
    Ok(session)
}

pub(super) fn advance(
    db: &Connection,
    tenant: &Tenant,
    key: &SessionKey,
    step: &Transition,
    at: Millis,
) -> Result<SessionRow, StoreError> {
    let session = get_current(db, tenant, key)?;
    if !step.starts_from(session.state) {
        return Err(Conflict::Stale.into());
    }
    let (failure, reason) = match step {
        Transition::Ready => (None, None),
        Transition::Stopping { reason } => (None, Some(reason)),
        Transition::Ended => (None, None),
        Transition::Failed(failure) | Transition::Lost(failure) => (Some(failure), Some(&failure.message)),
    };
    let target = step.target();
    // The state read above is compared once more in the same statement: the rule holds by itself.
    let changed = db
        .prepare_cached(
            "UPDATE sessions SET state = ?4, reason = coalesce(?5, reason), \
             ended_at = CASE WHEN ?6 THEN NULL ELSE ?7 END, \
             cleaned_at = CASE WHEN ?4 = 'ended' THEN ?7 ELSE cleaned_at END \
             WHERE id = ?1 AND generation = ?2 AND state = ?3",
        )?
        .execute((
            &key.id,
            key.generation,
            session.state,
            target,
            reason.map(|r| clip(r.clone(), MAX_MESSAGE)),
            target.is_live(),
            at,
        ))?;
    if changed == 0 {
        return Err(Conflict::Stale.into());
    }
    match target {
        SessionState::Ready | SessionState::Failed | SessionState::Lost => {
            sandboxes::put_failure(db, &session.sandbox_id, failure)?;
        }
        SessionState::Starting | SessionState::Stopping | SessionState::Ended => {}
    }
    if !target.is_live() {
        db.prepare_cached("UPDATE sandboxes SET idle_expires_at = NULL WHERE id = ?1")?
            .execute([&session.sandbox_id])?;
    }
    get(db, tenant, &key.id)
}

pub(super) fn query_all(db: &Connection, condition: &str) -> Result<Vec<SessionRow>, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM sessions WHERE {condition} ORDER BY id LIMIT {MAX_SCAN}"
    ))?;
    Ok(query.query_map([], read)?.collect::<Result<_, _>>()?)
}
