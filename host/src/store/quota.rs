//! How much a tenant may have, counted in the transaction of what is limited: two that race for the last place
//! stand in the writer's queue, and one of them finds it taken.
//!
//! Nothing here is a counter that could drift: rows are counted, each kind by an index of its own. Only the bytes of
//! the history would take too long to add up with every execution, so triggers keep their sum, in the transaction
//! of whatever changes them. Open streams have no rows; [`crate::streams`] counts them in memory.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension};

use crate::auth::Tenant;

use super::Store;
use super::error::StoreError;
use super::row::{is_live, serves_files};

/// Live sessions of a tenant, but for those that serve lockers' files.
const RUNNING: &str = concat!(
    "SELECT count(*) FROM sessions WHERE tenant = ?1 AND ",
    is_live!(),
    " AND NOT ",
    serves_files!("sandbox_id")
);
/// Those of them that start: live ones by definition, which the index must be told.
const STARTING: &str = concat!(
    "SELECT count(*) FROM sessions WHERE tenant = ?1 AND state = 'starting' AND ",
    is_live!(),
    " AND NOT ",
    serves_files!("sandbox_id")
);

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quota {
    /// Sandboxes that are not deleted.
    Sandboxes,
    /// Live sessions: starting, ready or stopping. Those that serve lockers' files without a sandbox do not count.
    Running,
    /// Starts under way.
    Starting,
    /// Executions that have not ended.
    Executions,
    /// Open streams: events, watches, terminals.
    Streams,
    /// External lockers. Managed ones are limited with their sandboxes.
    Lockers,
    /// Sum of the size limits of external lockers, in MiB.
    LockerMb,
    /// What the history keeps, in bytes.
    HistoryBytes,
}

impl Quota {
    /// Each of them, in the order of answers.
    pub const ALL: [Self; 8] = [
        Self::Sandboxes,
        Self::Running,
        Self::Starting,
        Self::Executions,
        Self::Streams,
        Self::Lockers,
        Self::LockerMb,
        Self::HistoryBytes,
    ];

    /// As in configuration and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandboxes => "sandboxes",
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Executions => "executions",
            Self::Streams => "streams",
            Self::Lockers => "lockers",
            Self::LockerMb => "locker_mb",
            Self::HistoryBytes => "history_bytes",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quota| quota.as_str() == text)
    }

    /// What a tenant (`?1`) has of it. Streams have no rows.
    fn count(self) -> Option<&'static str> {
        match self {
            Self::Sandboxes => {
                Some("SELECT count(*) FROM sandboxes WHERE tenant = ?1 AND deleted_at IS NULL")
            }
            Self::Running => Some(RUNNING),
            Self::Starting => Some(STARTING),
            Self::Executions => {
                Some("SELECT count(*) FROM executions WHERE tenant = ?1 AND status = 'running'")
            }
            Self::Lockers => Some(
                "SELECT count(*) FROM lockers WHERE tenant = ?1 AND managed_by IS NULL AND deleted_at IS NULL",
            ),
            Self::LockerMb => Some(
                "SELECT coalesce(sum(size_limit_mb), 0) FROM lockers \
                 WHERE tenant = ?1 AND managed_by IS NULL AND deleted_at IS NULL",
            ),
            Self::HistoryBytes => Some("SELECT bytes FROM history_bytes WHERE tenant = ?1"),
            Self::Streams => None,
        }
    }
}

/// What one tenant may have; a quota that is absent is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits(HashMap<Quota, u64>);

impl Limits {
    /// With one more limit.
    #[must_use]
    pub fn with(mut self, quota: Quota, limit: u64) -> Self {
        self.0.insert(quota, limit);
        self
    }

    /// The limit; null: none.
    pub fn of(&self, quota: Quota) -> Option<u64> {
        self.0.get(&quota).copied()
    }
}

/// What every tenant may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Of tenants that have none of their own.
    pub others: Limits,
    /// Of tenants that have their own.
    pub tenants: HashMap<Tenant, Limits>,
}

impl Quotas {
    /// Of one tenant.
    pub fn of(&self, tenant: &Tenant) -> &Limits {
        self.tenants.get(tenant).unwrap_or(&self.others)
    }
}

/// One quota of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Which.
    pub quota: Quota,
    /// Null: no limit.
    pub limit: Option<u64>,
    /// What there is. Can be over a limit that was lowered: nothing is taken away for that.
    pub used: u64,
}

/// Gives the writer's SQL the function `quota_limit(tenant, quota)`: the limit as of now, null for none.
pub(super) fn install(db: &Connection, quotas: Arc<ArcSwap<Quotas>>) -> rusqlite::Result<()> {
    // Not deterministic on purpose: a reload changes the answer.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    db.create_scalar_function("quota_limit", 2, flags, move |call| {
        let (tenant, quota) = (call.get::<Tenant>(0)?, call.get::<String>(1)?);
        let limit = Quota::parse(&quota).and_then(|quota| quotas.load().of(&tenant).of(quota));
        Ok(limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX)))
    })
}

/// Refuses `more` of something where the tenant would have too much with it. Call it where it is inserted.
pub(super) fn room(db: &Connection, tenant: &Tenant, quota: Quota, more: u64) -> Result<(), StoreError> {
    let Some(limit) = limit(db, tenant, quota)? else { return Ok(()) };
    let used = used(db, tenant, quota)?;
    if used.saturating_add(more) > limit {
        return Err(StoreError::QuotaExceeded { quota: quota.as_str(), limit, used });
    }
    Ok(())
}

/// Refuses an external locker that is one too many, or too large with the others. One without a bound on its size
/// has no place where sizes are limited.
pub(super) fn room_for_locker(
    db: &Connection,
    tenant: &Tenant,
    size_mb: Option<u64>,
) -> Result<(), StoreError> {
    room(db, tenant, Quota::Lockers, 1)?;
    room(db, tenant, Quota::LockerMb, size_mb.unwrap_or(u64::MAX))
}

fn limit(db: &Connection, tenant: &Tenant, quota: Quota) -> Result<Option<u64>, StoreError> {
    let mut query = db.prepare_cached("SELECT quota_limit(?1, ?2)")?;
    Ok(query.query_row((tenant, quota.as_str()), |row| row.get(0))?)
}

fn used(db: &Connection, tenant: &Tenant, quota: Quota) -> Result<u64, StoreError> {
    let Some(count) = quota.count() else { return Ok(0) };
    let mut query = db.prepare_cached(count)?;
    Ok(query.query_row([tenant], |row| row.get(0)).optional()?.unwrap_or(0))
}

impl Store {
    /// What tenants may have, to read or to replace: at load and at each reload.
    pub fn quotas(&self) -> &Arc<ArcSwap<Quotas>> {
        &self.quotas
    }

    /// What a tenant has of everything that the store counts, and what it may have; open streams as 0.
    pub async fn usage(&self, tenant: &Tenant) -> Result<Vec<Usage>, StoreError> {
        let (owner, limits) = (tenant.clone(), self.quotas.load().of(tenant).clone());
        self.read(tenant, move |db| {
            let one = |quota| Ok(Usage { quota, limit: limits.of(quota), used: used(db, &owner, quota)? });
            Quota::ALL.into_iter().map(one).collect()
        })
        .await
    }
}
