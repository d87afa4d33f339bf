//! The sandboxes that serve lockers' files, and nothing else.
//!
//! Such a sandbox is Bay's own: its id is a [`Kind::Files`], which no client can ask for, and its row is a tombstone
//! from the beginning, so that nothing lists or counts it. Its sessions are as any sandbox's: named before they are
//! made, found again after a crash. There is at most one a locker; its row is forgotten a day after its last use.

use rusqlite::{Connection, OptionalExtension};

use crate::auth::{SystemContext, Tenant};
use crate::id::Kind;
use crate::store::error::{Conflict, StoreError};
use crate::store::row::{LIVE, MAX_NAME, MAX_SCAN, Millis, cap, serves_files};
use crate::store::sandboxes::{self, SandboxRow};
use crate::store::worker::Outlives;
use crate::store::{Store, sessions};

use super::get;

/// Most of them that run, of all tenants: each is a container with a runtime of some ten megabytes.
const MAX_RUNNING: u64 = 16;
/// Most of them that run of one tenant.
pub const MAX_FILES_OF_TENANT: usize = 4;

/// Of a sandbox; word for word as its index has it.
const OWN: &str = serves_files!("id");
/// Of a session.
const OF_FILES: &str = serves_files!("sandbox_id");

fn find(db: &Connection, locker_id: &str) -> Result<Option<String>, StoreError> {
    let mut query = db.prepare_cached(&format!("SELECT id FROM sandboxes WHERE locker_id = ?1 AND {OWN}"))?;
    Ok(query.query_row([locker_id], |row| row.get(0)).optional()?)
}

/// Marks the session that serves this locker's files as stopping, within the locker's deletion.
pub(super) fn stop(db: &Connection, locker_id: &str) -> Result<(), StoreError> {
    match find(db, locker_id)? {
        Some(id) => sessions::stop_live(db, &id, "the locker was deleted"),
        None => Ok(()),
    }
}

/// Such a sandbox, where one more of them may run and its locker is still there.
pub(in crate::store) fn startable(
    db: &Connection,
    tenant: &Tenant,
    id: &str,
) -> Result<SandboxRow, StoreError> {
    let sandbox = sandboxes::get_any(db, tenant, id)?;
    get(db, tenant, &sandbox.locker_id)?;
    let mut query = db.prepare_cached(&format!(
        "SELECT count(*), count(*) FILTER (WHERE tenant = ?1) FROM sessions WHERE cleaned_at IS NULL \
         AND {LIVE} AND {OF_FILES}"
    ))?;
    let (all, own) = query.query_row([tenant], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, usize>(1)?)))?;
    if all >= MAX_RUNNING || own >= MAX_FILES_OF_TENANT {
        return Err(Conflict::FilesFull.into());
    }
    Ok(sandbox)
}

fn take(
    db: &Connection,
    tenant: &Tenant,
    locker_id: &str,
    profile: &str,
    at: Millis,
) -> Result<SandboxRow, StoreError> {
    cap("profile", profile, MAX_NAME)?;
    get(db, tenant, locker_id)?;
    db.prepare_cached("UPDATE lockers SET last_accessed_at = max(last_accessed_at, ?2) WHERE id = ?1")?
        .execute((locker_id, at))?;
    let id = match find(db, locker_id)? {
        Some(id) => {
            db.prepare_cached(
                "UPDATE sandboxes SET profile = ?2, last_active_at = ?3, deleted_at = ?3 WHERE id = ?1",
            )?
            .execute((&id, profile, at))?;
            id
        }
        None => {
            let id = Kind::Files.mint();
            db.prepare_cached(
                "INSERT INTO sandboxes (id, tenant, profile, locker_id, labels, env, capabilities, created_at, \
                 last_active_at, deleted_at) VALUES (?1, ?2, ?3, ?4, '{}', '{}', '[\"filesystem\"]', ?5, ?5, ?5)",
            )?
            .execute((&id, tenant, profile, locker_id, at))?;
            id
        }
    };
    sandboxes::get_any(db, tenant, &id)
}

impl Store {
    /// The sandbox that serves this locker's files, made where there is none, of the given profile from its next
    /// session on. Notes the access.
    pub async fn take_files_sandbox(
        &self,
        tenant: &Tenant,
        locker_id: &str,
        profile: &str,
        at: Millis,
    ) -> Result<SandboxRow, StoreError> {
        let (owner, locker_id, profile) = (tenant.clone(), locker_id.to_owned(), profile.to_owned());
        // The session that follows is written to outlive a power failure, and this before it.
        self.write_to_outlive(Outlives::Bay, tenant, move |db| take(db, &owner, &locker_id, &profile, at))
            .await
    }

    /// The sandbox that serves a locker's files, if there is one; of a deleted locker, too.
    pub async fn find_files_sandbox(
        &self,
        tenant: &Tenant,
        locker_id: &str,
    ) -> Result<Option<SandboxRow>, StoreError> {
        let (owner, locker_id) = (tenant.clone(), locker_id.to_owned());
        self.read_row(tenant, move |db| {
            let id = find(db, &locker_id)?;
            id.map(|id| sandboxes::get_any(db, &owner, &id)).transpose()
        })
        .await
    }

    /// Every such sandbox that has a live session.
    pub async fn list_files_sandboxes(&self, system: &SystemContext) -> Result<Vec<SandboxRow>, StoreError> {
        self.read(system, |db| {
            let mut query = db.prepare_cached(&format!(
                "SELECT tenant, sandbox_id FROM sessions WHERE cleaned_at IS NULL \
                 AND {LIVE} AND {OF_FILES} \
                 ORDER BY id LIMIT {MAX_SCAN}"
            ))?;
            let rows = query.query_map([], |row| Ok((row.get::<_, Tenant>(0)?, row.get::<_, String>(1)?)))?;
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            rows.iter().map(|(tenant, id)| sandboxes::get_any(db, tenant, id)).collect()
        })
        .await
    }

    /// Sandboxes with a ready session that have this locker, newest first; a few at most.
    pub async fn list_ready_with_locker(
        &self,
        tenant: &Tenant,
        locker_id: &str,
    ) -> Result<Vec<SandboxRow>, StoreError> {
        let (owner, locker_id) = (tenant.clone(), locker_id.to_owned());
        self.read_row(tenant, move |db| {
            let mut query = db.prepare_cached(
                "SELECT s.id FROM sandboxes s JOIN sessions l ON l.sandbox_id = s.id AND l.state = 'ready' \
                 WHERE s.locker_id = ?1 AND s.tenant = ?2 AND s.deleted_at IS NULL \
                 ORDER BY l.started_at DESC LIMIT 4",
            )?;
            let ids = query.query_map((&locker_id, &owner), |row| row.get::<_, String>(0))?;
            let ids = ids.collect::<Result<Vec<_>, _>>()?;
            ids.iter().map(|id| sandboxes::get_any(db, &owner, id)).collect()
        })
        .await
    }

    /// The profile of the sandbox that was last made with this locker, as far back as deleted ones are remembered.
    pub async fn last_profile_of_locker(
        &self,
        tenant: &Tenant,
        locker_id: &str,
    ) -> Result<Option<String>, StoreError> {
        let (owner, locker_id) = (tenant.clone(), locker_id.to_owned());
        self.read_row(tenant, move |db| {
            let mut query = db.prepare_cached(&format!(
                "SELECT profile FROM sandboxes WHERE locker_id = ?1 AND tenant = ?2 AND NOT {OWN} \
                 ORDER BY created_at DESC, id DESC LIMIT 1"
            ))?;
            Ok(query.query_row((&locker_id, &owner), |row| row.get(0)).optional()?)
        })
        .await
    }
}
