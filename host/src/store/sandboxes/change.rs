//! What clients change of a sandbox that lives: its name, labels and times. Each is one statement or one read and write
//! on the writer's thread, so that none of two at once is lost.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::auth::Tenant;
use crate::store::Store;
use crate::store::error::{Conflict, StoreError};
use crate::store::idempotency::{self, Claim};
use crate::store::row::{Json, MAX_NAME, Millis, cap_opt, merge_labels};

use super::sql::get;
use super::{SandboxRow, get_any};

/// A merge patch: what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxPatch {
    /// Null inside: no name.
    pub name: Option<Option<String>>,
    /// By key; null: the label goes.
    pub labels: BTreeMap<String, Option<String>>,
    /// All labels there are go first.
    pub clear_labels: bool,
    /// Null inside: never.
    pub expires_at: Option<Option<Millis>>,
    /// Null inside: the profile's.
    pub idle_timeout_ms: Option<Option<Millis>>,
}

fn expired(row: &SandboxRow, now: Millis) -> Result<(), StoreError> {
    match row.expires_at.filter(|at| *at <= now) {
        Some(expires_at) => Err(Conflict::Expired { expires_at }.into()),
        None => Ok(()),
    }
}

fn update(
    db: &Connection,
    tenant: &Tenant,
    id: &str,
    patch: SandboxPatch,
    now: Millis,
) -> Result<SandboxRow, StoreError> {
    let mut row = get(db, tenant, id)?;
    expired(&row, now)?;
    merge_labels(&mut row.labels, patch.labels, patch.clear_labels)?;
    row.name = patch.name.unwrap_or(row.name);
    row.expires_at = patch.expires_at.unwrap_or(row.expires_at);
    row.idle_timeout_ms = patch.idle_timeout_ms.unwrap_or(row.idle_timeout_ms);
    cap_opt("name", row.name.as_ref(), MAX_NAME)?;
    db.prepare_cached(
        "UPDATE sandboxes SET name = ?2, labels = ?3, expires_at = ?4, idle_timeout_ms = ?5 WHERE id = ?1",
    )?
    .execute((id, &row.name, Json(&row.labels), row.expires_at, row.idle_timeout_ms))?;
    get(db, tenant, id)
}

/// A longer life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendTtl {
    /// By how much, milliseconds.
    pub by: Millis,
    /// Past this it is refused.
    pub latest: Millis,
    /// Now.
    pub at: Millis,
    /// The key of the request: where that has extended it already, nothing is changed.
    pub claim: Option<Claim>,
}

fn extend(db: &Connection, tenant: &Tenant, id: &str, wanted: &ExtendTtl) -> Result<SandboxRow, StoreError> {
    if let Some(claim) = &wanted.claim
        && idempotency::claim(db, tenant, claim, id)?.is_some()
    {
        return get(db, tenant, id);
    }
    // The sum is taken and stored in one statement: of a hundred at once each adds to what the one before it stored.
    let changed = db
        .prepare_cached(
            "UPDATE sandboxes SET expires_at = max(expires_at, ?3) + ?4 \
             WHERE id = ?1 AND tenant = ?2 AND deleted_at IS NULL AND expires_at > ?3 \
             AND max(expires_at, ?3) + ?4 <= ?5",
        )?
        .execute((id, tenant, wanted.at, wanted.by, wanted.latest))?;
    let row = get(db, tenant, id)?;
    if changed > 0 {
        return Ok(row);
    }
    expired(&row, wanted.at)?;
    Err(match row.expires_at {
        None => Conflict::TtlInfinite,
        Some(_) => Conflict::PastLatest { latest: wanted.latest },
    }
    .into())
}

impl Store {
    /// Applies a patch to a sandbox that has not expired.
    pub async fn update_sandbox(
        &self,
        tenant: &Tenant,
        id: &str,
        patch: SandboxPatch,
        now: Millis,
    ) -> Result<SandboxRow, StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write(tenant, move |db| update(db, &owner, &id, patch, now)).await
    }

    /// Lets a sandbox live longer than it would. [`Conflict::TtlInfinite`] where it never expires,
    /// [`Conflict::Expired`] where it has, [`Conflict::PastLatest`] where it would live too long.
    pub async fn extend_sandbox(
        &self,
        tenant: &Tenant,
        id: &str,
        wanted: ExtendTtl,
    ) -> Result<SandboxRow, StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write(tenant, move |db| extend(db, &owner, &id, &wanted)).await
    }

    /// One sandbox, or what is left of one that was deleted.
    pub async fn get_sandbox_or_tombstone(
        &self,
        tenant: &Tenant,
        id: &str,
    ) -> Result<SandboxRow, StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.read_row(tenant, move |db| get_any(db, &owner, &id)).await
    }
}
