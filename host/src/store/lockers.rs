//! Lockers: the persistent storage at `/workspace`. Removal is an intent first; the row goes after the volume.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::auth::{SystemContext, Tenant};

pub(super) mod files;
mod list;

pub use files::MAX_FILES_OF_TENANT;
pub use list::{LockerChange, LockerFilter};

use super::Store;
use super::error::{Conflict, StoreError};
use super::idempotency::{self, Claim};
use super::quota;
use super::row::{Json, MAX_LISTED, MAX_MESSAGE, MAX_NAME, MAX_SCAN, Millis, cap, cap_all, cap_opt, found};

/// A locker as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockerRow {
    /// `lkr_…`
    pub id: String,
    /// Its owner; never changes.
    pub tenant: Tenant,
    /// Unique within the tenant when given.
    pub name: Option<String>,
    /// The one sandbox it lives and dies with; null: external.
    pub managed_by: Option<String>,
    /// Kind of volume: `directory`, `docker_volume`.
    pub backend: String,
    /// What the driver calls the volume; null until the first start made it.
    pub backend_ref: Option<String>,
    /// Given by the client.
    pub labels: BTreeMap<String, String>,
    /// Bound on its size; null: none.
    pub size_limit_mb: Option<u64>,
    /// When the row was made.
    pub created_at: Millis,
    /// When a session or a new sandbox last took it.
    pub last_accessed_at: Millis,
    /// Intent: the volume is to go.
    pub deleted_at: Option<Millis>,
    /// Bytes in it as of the last walk; null: never walked, or too much to walk.
    pub used_bytes: Option<u64>,
    /// When it was last walked.
    pub used_bytes_at: Option<Millis>,
}

/// A locker to be made. Its volume is made at first start.
#[derive(Debug, Clone)]
pub struct NewLocker {
    /// From [`crate::id::Kind::Locker`].
    pub id: String,
    /// For people, and for [`LockerChoice::Named`](super::LockerChoice).
    pub name: Option<String>,
    /// Kind of volume, from the driver.
    pub backend: String,
    /// For selection.
    pub labels: BTreeMap<String, String>,
    /// Null: no bound.
    pub size_limit_mb: Option<u64>,
    /// Now.
    pub created_at: Millis,
}

const COLUMNS: &str = "id, tenant, name, managed_by, backend, backend_ref, labels, size_limit_mb, created_at, \
     last_accessed_at, deleted_at, used_bytes, used_bytes_at";

fn read(row: &Row<'_>) -> rusqlite::Result<LockerRow> {
    Ok(LockerRow {
        id: row.get(0)?,
        tenant: row.get(1)?,
        name: row.get(2)?,
        managed_by: row.get(3)?,
        backend: row.get(4)?,
        backend_ref: row.get(5)?,
        labels: row.get::<_, Json<_>>(6)?.0,
        size_limit_mb: row.get(7)?,
        created_at: row.get(8)?,
        last_accessed_at: row.get(9)?,
        deleted_at: row.get(10)?,
        used_bytes: row.get(11)?,
        used_bytes_at: row.get(12)?,
    })
}

pub(super) fn get(db: &Connection, tenant: &Tenant, id: &str) -> Result<LockerRow, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM lockers WHERE id = ?1 AND tenant = ?2 AND deleted_at IS NULL"
    ))?;
    found(query.query_row((id, tenant), read), "locker", id)
}

/// A locker that a new sandbox may share; notes the access.
pub(super) fn get_external(
    db: &Connection,
    tenant: &Tenant,
    id: &str,
    at: Millis,
) -> Result<LockerRow, StoreError> {
    let locker = get(db, tenant, id)?;
    if let Some(sandbox_id) = locker.managed_by {
        return Err(Conflict::LockerManaged { sandbox_id }.into());
    }
    db.prepare_cached("UPDATE lockers SET last_accessed_at = max(last_accessed_at, ?2) WHERE id = ?1")?
        .execute((id, at))?;
    get(db, tenant, id)
}

pub(super) fn id_of_name(db: &Connection, tenant: &Tenant, name: &str) -> Result<String, StoreError> {
    let mut query =
        db.prepare_cached("SELECT id FROM lockers WHERE tenant = ?1 AND name = ?2 AND deleted_at IS NULL")?;
    found(query.query_row((tenant, name), |row| row.get(0)), "locker", name)
}

pub(super) fn insert(
    db: &Connection,
    tenant: &Tenant,
    new: NewLocker,
    managed_by: Option<&str>,
) -> Result<LockerRow, StoreError> {
    cap("id", &new.id, MAX_NAME)?;
    cap_opt("name", new.name.as_ref(), MAX_NAME)?;
    cap("backend", &new.backend, MAX_NAME)?;
    cap_all("labels", new.labels.iter().flat_map(|(k, v)| [k, v]))?;
    if let Some(name) = &new.name
        && id_of_name(db, tenant, name).is_ok()
    {
        return Err(Conflict::NameTaken.into());
    }
    if managed_by.is_none() {
        quota::room_for_locker(db, tenant, new.size_limit_mb)?;
    }
    let made = db
        .prepare_cached(
            "INSERT INTO lockers (id, tenant, name, managed_by, backend, labels, size_limit_mb, created_at, \
             last_accessed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8) ON CONFLICT DO NOTHING",
        )?
        .execute((
            &new.id,
            tenant,
            &new.name,
            managed_by,
            &new.backend,
            Json(&new.labels),
            new.size_limit_mb,
            new.created_at,
        ))?;
    if made == 0 {
        return Err(Conflict::IdTaken.into());
    }
    get(db, tenant, &new.id)
}

/// Marks the managed locker of a sandbox for removal.
pub(super) fn mark_managed(db: &Connection, sandbox_id: &str, at: Millis) -> Result<(), StoreError> {
    let mut query =
        db.prepare_cached("SELECT id FROM lockers WHERE managed_by = ?1 AND deleted_at IS NULL")?;
    match query.query_row([sandbox_id], |row| row.get::<_, String>(0)).optional()? {
        Some(id) => mark(db, &id, at),
        None => Ok(()),
    }
}

/// Marks a locker for removal, remembers that it was there, and ends what serves its files.
fn mark(db: &Connection, id: &str, at: Millis) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE lockers SET deleted_at = ?2 WHERE id = ?1")?.execute((id, at))?;
    db.prepare_cached(
        "INSERT OR IGNORE INTO locker_tombstones (id, tenant, deleted_at) \
         SELECT id, tenant, ?2 FROM lockers WHERE id = ?1",
    )?
    .execute((id, at))?;
    files::stop(db, id)
}

/// The managed locker of a sandbox, marked or not.
pub(super) fn managed_by(db: &Connection, sandbox_id: &str) -> Result<Option<LockerRow>, StoreError> {
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM lockers WHERE managed_by = ?1"))?;
    Ok(query.query_row([sandbox_id], read).optional()?)
}

/// Lockers marked for removal that no session uses any more, so that their volumes may go now.
pub(super) fn removable(db: &Connection) -> Result<Vec<LockerRow>, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM lockers WHERE deleted_at IS NOT NULL AND NOT EXISTS ( \
         SELECT 1 FROM sandboxes s JOIN sessions l ON l.sandbox_id = s.id \
         WHERE s.locker_id = lockers.id AND l.cleaned_at IS NULL) ORDER BY id LIMIT {MAX_SCAN}"
    ))?;
    Ok(query.query_map([], read)?.collect::<Result<_, _>>()?)
}

fn delete(db: &Connection, tenant: &Tenant, id: &str, at: Millis) -> Result<(), StoreError> {
    let locker = match get(db, tenant, id) {
        Ok(locker) => locker,
        Err(StoreError::NotFound { .. }) if was_deleted(db, tenant, id)? => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut query = db.prepare_cached(&format!(
        "SELECT id FROM sandboxes WHERE locker_id = ?1 AND deleted_at IS NULL ORDER BY id LIMIT {MAX_LISTED}"
    ))?;
    let sandbox_ids = query.query_map([id], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    if !sandbox_ids.is_empty() {
        return Err(match locker.managed_by {
            Some(sandbox_id) => Conflict::LockerManaged { sandbox_id },
            None => Conflict::LockerInUse { sandbox_ids },
        }
        .into());
    }
    mark(db, id, at)
}

fn was_deleted(db: &Connection, tenant: &Tenant, id: &str) -> Result<bool, StoreError> {
    let mut query = db.prepare_cached("SELECT 1 FROM locker_tombstones WHERE id = ?1 AND tenant = ?2")?;
    Ok(query.exists((id, tenant))?)
}

impl Store {
    /// Makes an external locker. With a `claim` that was made before: the locker that was made with it.
    pub async fn create_locker(
        &self,
        tenant: &Tenant,
        new: NewLocker,
        claim: Option<Claim>,
    ) -> Result<LockerRow, StoreError> {
        let owner = tenant.clone();
        self.write(tenant, move |db| {
            if let Some(claim) = &claim
                && let Some(made) = idempotency::claim(db, &owner, claim, &new.id)?
            {
                return get(db, &owner, &made);
            }
            insert(db, &owner, new, None)
        })
        .await
    }

    /// One locker, managed or external. One marked for removal is not found.
    pub async fn get_locker(&self, tenant: &Tenant, id: &str) -> Result<LockerRow, StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.read_row(tenant, move |db| get(db, &owner, &id)).await
    }

    /// Notes the volume that the driver made, and that a session takes the locker. Once set, a volume is never
    /// replaced: another reference for the same locker is a conflict.
    pub async fn set_locker_volume(
        &self,
        tenant: &Tenant,
        id: &str,
        backend_ref: &str,
        at: Millis,
    ) -> Result<LockerRow, StoreError> {
        let (owner, id, backend_ref) = (tenant.clone(), id.to_owned(), backend_ref.to_owned());
        self.write(tenant, move |db| {
            cap("backend_ref", &backend_ref, MAX_MESSAGE)?;
            let locker = get(db, &owner, &id)?;
            if locker.backend_ref.as_ref().is_some_and(|known| *known != backend_ref) {
                return Err(Conflict::Stale.into());
            }
            db.prepare_cached(
                "UPDATE lockers SET backend_ref = ?2, last_accessed_at = max(last_accessed_at, ?3) WHERE id = ?1",
            )?
            .execute((&id, &backend_ref, at))?;
            get(db, &owner, &id)
        })
        .await
    }

    /// Marks a locker for removal, unless a sandbox has it. One that was deleted not long ago is no error.
    pub async fn delete_locker(&self, tenant: &Tenant, id: &str, at: Millis) -> Result<(), StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write(tenant, move |db| delete(db, &owner, &id, at)).await
    }

    /// The volume of a locker marked for removal is gone: forgets the row. Idempotent.
    pub async fn finish_locker_removal(&self, system: &SystemContext, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write(system, move |db| {
            db.prepare_cached("DELETE FROM lockers WHERE id = ?1 AND deleted_at IS NOT NULL")?
                .execute([&id])?;
            Ok(())
        })
        .await
    }
}
