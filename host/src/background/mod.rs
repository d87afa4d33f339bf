//! Work that nobody asks for: takes no input, is idempotent and bounded, and reports what it did.
//!
//! So far only the store is kept from growing: history beyond what `[history]` keeps, and tombstones past their
//! retention. Sessions end themselves (see `session::task`).

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::audit;
use crate::auth::SystemContext;
use crate::config::HistoryConfig;
use crate::store::{HistoryLimits, Store, StoreError};
use crate::time::now_ms;

/// How often it runs; a run that finds nothing costs a few index look-ups.
const EVERY: Duration = Duration::from_secs(600);
/// How long a deleted sandbox or locker answers a repeated DELETE with 204.
const TOMBSTONE_MS: i64 = 24 * 3600 * 1000;
/// Most rounds of one run; each takes a bounded number of rows, and the next run takes the rest.
const MAX_ROUNDS: usize = 200;

/// What one run removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HousekeepingReport {
    /// Executions past the history's bounds, or of deleted sandboxes.
    pub executions: usize,
    /// Deleted sandboxes and lockers past their retention.
    pub tombstones: usize,
    /// Entries of the audit log past its bounds.
    pub audit: usize,
}

/// One run.
pub async fn keep_house(store: &Store, history: &HistoryConfig) -> Result<HousekeepingReport, StoreError> {
    let system = SystemContext::for_background();
    let mut report = HousekeepingReport::default();
    let keep = i64::try_from(history.keep.as_millis()).unwrap_or(i64::MAX);
    let limits = HistoryLimits { before: now_ms().saturating_sub(keep), per_sandbox: history.per_sandbox };
    for _ in 0..MAX_ROUNDS {
        let erased = store.erase_deleted_executions(&system).await?;
        let pruned = store.prune_executions(&system, limits).await?;
        report.executions += erased + pruned;
        if erased + pruned == 0 {
            break;
        }
    }
    report.tombstones = store.purge_tombstones(&system, now_ms() - TOMBSTONE_MS).await?;
    report.tombstones += store.purge_locker_tombstones(&system, now_ms() - TOMBSTONE_MS).await?;
    for _ in 0..MAX_ROUNDS {
        let pruned = store.prune_audit(&system, now_ms() - audit::KEEP_MS, audit::KEEP).await?;
        report.audit += pruned;
        if pruned == 0 {
            break;
        }
    }
    Ok(report)
}

/// Runs at once and then every ten minutes, until told to end.
pub async fn run(store: Store, history: HistoryConfig, ends: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = ends.cancelled() => return,
        }
        match keep_house(&store, &history).await {
            Ok(report) if report == HousekeepingReport::default() => {}
            Ok(report) => tracing::info!(?report, "kept house"),
            Err(error) => tracing::warn!(%error, "housekeeping failed; tried again later"),
        }
    }
}
