//! Work that nobody asks for: takes no input, is idempotent and bounded, retries nothing by itself, and reports what it
//! did. One run does every task in turn; what a run leaves the next one takes.
//!
//! - **expired sandboxes**: a sandbox is *expired* if and only if its `expires_at` has passed. Its session ends then
//!   (the session's own task does that; here only where it could not), and after `housekeeping.expired_grace` it goes
//!   as if a client had deleted it. Until then clients read `expired`.
//! - **idempotency keys** past `housekeeping.idempotency_keep`.
//! - **history** beyond what `[history]` keeps, and **tombstones** past their retention.

mod expired;
mod gc;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::audit;
use crate::auth::SystemContext;
use crate::config::HistoryConfig;
use crate::store::{HistoryLimits, Store, StoreError};
use crate::time::now_ms;

pub use expired::ExpiredReport;
pub use gc::{TaskReport, collect};

/// How long a deleted sandbox or locker answers a repeated DELETE with 204.
const TOMBSTONE_MS: i64 = 24 * 3600 * 1000;
/// How long an execution that no history keeps is known after its end, for whoever waits for it.
const UNLISTED_MS: i64 = 600 * 1000;
/// How long one run takes over expired sandboxes.
const EXPIRED_LIMIT: Duration = Duration::from_secs(60);
/// Most rounds of one task in one run; each takes a bounded number of rows.
const MAX_ROUNDS: usize = 200;

/// What can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Sessions that nothing calls.
    IdleSession,
    /// Sandboxes whose time is up.
    ExpiredSandbox,
    /// Volumes whose lockers are deleted.
    OrphanLocker,
    /// Containers that no session has.
    OrphanContainer,
    /// Answers kept for repeats.
    ExpiredIdempotencyKey,
}

impl Task {
    /// In the order in which they run.
    pub const ALL: [Self; 5] = [
        Self::IdleSession,
        Self::ExpiredSandbox,
        Self::OrphanLocker,
        Self::OrphanContainer,
        Self::ExpiredIdempotencyKey,
    ];

    /// As the contract names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdleSession => "idle_session",
            Self::ExpiredSandbox => "expired_sandbox",
            Self::OrphanLocker => "orphan_locker",
            Self::OrphanContainer => "orphan_container",
            Self::ExpiredIdempotencyKey => "expired_idempotency_key",
        }
    }

    /// From its name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.as_str() == text)
    }
}

/// What one run did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HousekeepingReport {
    /// Sandboxes whose time is up.
    pub expired: ExpiredReport,
    /// Records of idempotency keys past their time.
    pub idempotency_keys: usize,
    /// Executions past the history's bounds, or of deleted sandboxes.
    pub executions: usize,
    /// Deleted sandboxes and lockers past their retention.
    pub tombstones: usize,
    /// Entries of the audit log past its bounds.
    pub audit: usize,
}

impl HousekeepingReport {
    fn did_something(&self) -> bool {
        let expired = &self.expired;
        let done = expired.removed
            + expired.stopped
            + self.idempotency_keys
            + self.executions
            + self.tombstones
            + self.audit;
        done > 0 || !expired.errors.is_empty()
    }
}

/// One run. A task that fails does not keep the others from running; the first error is told after all of them.
pub async fn keep_house(app: &Arc<App>) -> (HousekeepingReport, Result<(), StoreError>) {
    let _alone = app.house.lock().await;
    let (system, config) = (SystemContext::for_background(), &app.config.housekeeping);
    let mut report = HousekeepingReport::default();
    let keep = i64::try_from(config.idempotency_keep.as_millis()).unwrap_or(i64::MAX);
    let keys = prune_keys(&app.store, &system, now_ms().saturating_sub(keep), &mut report).await;
    let history = prune_history(&app.store, &system, &app.config.history, &mut report).await;
    let audit = prune_audit(&app.store, &system, &mut report).await;
    // Last and bounded, because it waits for a driver, which may hang; the next run goes on.
    let expired = expired::run(app, &system, *config.expired_grace, &mut report.expired);
    let expired = tokio::time::timeout(EXPIRED_LIMIT, expired).await.unwrap_or(Ok(()));
    (report, expired.and(keys).and(history).and(audit))
}

async fn prune_keys(
    store: &Store,
    system: &SystemContext,
    before: i64,
    report: &mut HousekeepingReport,
) -> Result<(), StoreError> {
    for _ in 0..MAX_ROUNDS {
        let pruned = store.prune_claims(system, before).await?;
        report.idempotency_keys += pruned;
        if pruned == 0 {
            break;
        }
    }
    Ok(())
}

async fn prune_history(
    store: &Store,
    system: &SystemContext,
    history: &HistoryConfig,
    report: &mut HousekeepingReport,
) -> Result<(), StoreError> {
    let keep = i64::try_from(history.keep.as_millis()).unwrap_or(i64::MAX);
    let limits = HistoryLimits {
        before: now_ms().saturating_sub(keep),
        per_sandbox: history.per_sandbox,
        sandbox_bytes: history.sandbox_bytes.bytes(),
        tenant_bytes: history.tenant_bytes.bytes(),
        unlisted_before: now_ms().saturating_sub(UNLISTED_MS),
    };
    for _ in 0..MAX_ROUNDS {
        let erased = store.erase_deleted_executions(system).await?;
        let pruned = store.prune_executions(system, limits).await?;
        report.executions += erased + pruned;
        if erased + pruned == 0 {
            break;
        }
    }
    report.tombstones = store.purge_tombstones(system, now_ms() - TOMBSTONE_MS).await?;
    report.tombstones += store.purge_locker_tombstones(system, now_ms() - TOMBSTONE_MS).await?;
    Ok(())
}

async fn prune_audit(
    store: &Store,
    system: &SystemContext,
    report: &mut HousekeepingReport,
) -> Result<(), StoreError> {
    for _ in 0..MAX_ROUNDS {
        let pruned = store.prune_audit(system, now_ms() - audit::KEEP_MS, audit::KEEP).await?;
        report.audit += pruned;
        if pruned == 0 {
            break;
        }
    }
    Ok(())
}

/// Runs at once and then every `housekeeping.every`, until told to end. What is half done then the next Bay finds.
pub async fn run(app: Arc<App>, ends: CancellationToken) {
    let mut ticks = tokio::time::interval(*app.config.housekeeping.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = ends.cancelled() => return,
        }
        let (report, end) = tokio::select! {
            done = keep_house(&app) => done,
            () = ends.cancelled() => return,
        };
        if report.did_something() {
            tracing::info!(?report, "kept house");
        }
        if let Err(error) = end {
            tracing::warn!(%error, "housekeeping failed; tried again later");
        }
    }
}
