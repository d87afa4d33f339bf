//! Lockers as their owner lists and changes them, what they hold, and the memory of deleted ones.

use std::collections::BTreeMap;

use rusqlite::{Connection, named_params};

use crate::auth::{SystemContext, Tenant};
use crate::store::Store;
use crate::store::error::{Conflict, StoreError};
use crate::store::page::{Listing, Page};
use crate::store::row::{Json, MAX_NAME, Millis, cap_opt, has_labels, merge_labels};

use super::{COLUMNS, LockerRow, get, id_of_name, read};

/// What a list of lockers is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct LockerFilter {
    /// Those that sandboxes made for themselves, instead of those that clients made.
    pub managed: bool,
    /// All of these labels with exactly these values.
    pub labels: BTreeMap<String, String>,
}

/// What of a locker is to change.
#[derive(Debug, Clone, Default)]
pub struct LockerChange {
    /// Null inside: without a name from now on.
    pub name: Option<Option<String>>,
    /// Labels to set; null inside: to remove.
    pub labels: BTreeMap<String, Option<String>>,
    /// Whether all labels that it has are removed first.
    pub clear_labels: bool,
}

fn list(
    db: &Connection,
    tenant: &Tenant,
    filter: &LockerFilter,
    page: &Page,
) -> Result<Listing<LockerRow>, StoreError> {
    let (below_at, below_id) = page.below();
    let managed = if filter.managed { "NOT NULL" } else { "NULL" };
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM lockers l WHERE l.tenant = :tenant AND l.deleted_at IS NULL \
         AND l.managed_by IS {managed} AND (l.created_at, l.id) < (:below_at, :below_id) \
         AND {} ORDER BY l.created_at DESC, l.id DESC LIMIT :rows",
        has_labels("l")
    ))?;
    let rows = query.query_map(
        named_params! {
            ":tenant": tenant,
            ":below_at": below_at,
            ":below_id": below_id,
            ":labels": Json(&filter.labels),
            ":rows": page.size() + 1,
        },
        read,
    )?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(Listing::from_rows(rows, page, |row| (row.created_at, &row.id)))
}

fn update(db: &Connection, tenant: &Tenant, id: &str, change: LockerChange) -> Result<LockerRow, StoreError> {
    let LockerRow { name: current, mut labels, .. } = get(db, tenant, id)?;
    let name = change.name.unwrap_or_else(|| current.clone());
    cap_opt("name", name.as_ref(), MAX_NAME)?;
    if let Some(wanted) = name.as_ref().filter(|_| name != current)
        && id_of_name(db, tenant, wanted).is_ok()
    {
        return Err(Conflict::NameTaken.into());
    }
    merge_labels(&mut labels, change.labels, change.clear_labels)?;
    db.prepare_cached("UPDATE lockers SET name = ?2, labels = ?3 WHERE id = ?1")?.execute((
        id,
        &name,
        Json(&labels),
    ))?;
    get(db, tenant, id)
}

impl Store {
    /// Newest first.
    pub async fn list_lockers(
        &self,
        tenant: &Tenant,
        filter: LockerFilter,
        page: Page,
    ) -> Result<Listing<LockerRow>, StoreError> {
        let owner = tenant.clone();
        self.read(tenant, move |db| list(db, &owner, &filter, &page)).await
    }

    /// Changes name and labels.
    pub async fn update_locker(
        &self,
        tenant: &Tenant,
        id: &str,
        change: LockerChange,
    ) -> Result<LockerRow, StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write(tenant, move |db| update(db, &owner, &id, change)).await
    }

    /// Notes what a walk found; null where it passed its bound.
    pub async fn set_locker_usage(
        &self,
        tenant: &Tenant,
        id: &str,
        used: Option<u64>,
        at: Millis,
    ) -> Result<(), StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write_to_outlive(crate::store::worker::Outlives::Bay, tenant, move |db| {
            let used = used.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
            db.prepare_cached(
                "UPDATE lockers SET used_bytes = ?3, used_bytes_at = ?4 WHERE id = ?1 AND tenant = ?2",
            )?
            .execute((&id, &owner, used, at))?;
            Ok(())
        })
        .await
    }

    /// Forgets lockers that were deleted before `before`. Answers how many; at most a thousand at once.
    pub async fn purge_locker_tombstones(
        &self,
        system: &SystemContext,
        before: Millis,
    ) -> Result<usize, StoreError> {
        self.write(system, move |db| {
            Ok(db
                .prepare_cached(
                    "DELETE FROM locker_tombstones WHERE id IN \
                     (SELECT id FROM locker_tombstones WHERE deleted_at < ?1 LIMIT 1000)",
                )?
                .execute([before])?)
        })
        .await
    }
}
