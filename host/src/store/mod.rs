//! The source of truth: one SQLite database in the data directory, locked by the Bay that runs.
//!
//! ```text
//!  callers ──▶ queue, fair by tenant, bounded ──▶ one writer thread ──▶ bay.db (WAL)
//!          ├─▶ queue, fair by tenant, bounded ──▶ reader threads, query_only ──┤
//!          └─▶ a spare connection, for one row by its key, query_only ─────────┘
//! ```
//!
//! - A call that answers `Ok` to a write has it on disk (`synchronous = FULL`): the answer is sent after the
//!   commit. Only records of executions leave the fsync out (`NORMAL`): they outlive Bay's sudden end, and a power
//!   failure, which may take the last of them, has ended the work itself, too. The writer takes
//!   what waits into one transaction, so that many callers share one fsync; each has its own savepoint, and one
//!   that fails leaves no trace and harms no other.
//! - Quotas are checked in the transaction of what they limit (`quota`).
//! - No transaction outlives a closure on those threads, so none is ever held across an await.
//! - Every query takes a [`Tenant`](crate::auth::Tenant) or a [`SystemContext`](crate::auth::SystemContext).
//! - Order of writes is intent, act, result: `begin_session` before the driver acts, `delete_sandbox` before
//!   anything is removed, `record_execution` before anything is dispatched. What was half done is found again by
//!   `list_live_sessions`, `list_pending_removals` and `mark_executions_lost`.
//!
//! Times are milliseconds since 1970 ([`Millis`]).

mod audit;
mod error;
mod executions;
mod idempotency;
mod keys;
mod lock;
mod lockers;
mod page;
mod queue;
mod quota;
mod row;
mod sandboxes;
mod schema;
mod sessions;
mod worker;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use audit::{AuditFilter, AuditRow, NewAudit};
pub use error::{Conflict, OpenError, StoreError};
pub use executions::{
    Annotation, ExecType, ExecutionFilter, ExecutionRow, ExecutionStatus, FinishExecution, HistoryLimits,
    NewExecution,
};
pub use idempotency::{Claim, Claimed};
pub use keys::{KeyRow, NewKey};
pub use lockers::{LockerChange, LockerFilter, LockerRow, MAX_FILES_OF_TENANT, NewLocker};
pub use page::{Cursor, Listing, Page};
pub use quota::{Limits, Quota, Quotas, Usage};
pub use row::{Env, Millis};
pub use sandboxes::{
    DeletedSandbox, ExtendTtl, Failure, LockerChoice, NewSandbox, SandboxFilter, SandboxPatch, SandboxRow,
    SandboxStatus, SessionBrief,
};
pub use sessions::{
    ContainerRow, NewContainer, PendingRemovals, SessionKey, SessionRow, SessionState, Transition,
};

use worker::Workers;

/// The database of one Bay. Cheap to clone; the last clone to go writes what is queued and closes it.
#[derive(Debug, Clone)]
pub struct Store {
    workers: Arc<Workers>,
    quotas: Arc<ArcSwap<Quotas>>,
}

impl Store {
    /// Opens (and on first use makes) the database in `data_dir`, takes the directory's lock and brings the
    /// schema up to date. Blocks: call it at start-up.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let lock = lock::DataDirLock::acquire(data_dir)?;
        let path = data_dir.join(schema::FILE);
        let writer = schema::open_writer(&path)?;
        let quotas = Arc::<ArcSwap<Quotas>>::default();
        quota::install(&writer, Arc::clone(&quotas))
            .map_err(|source| OpenError::Database { path: path.clone(), source })?;
        let readers = |n| (0..n).map(|_| schema::open_reader(&path)).collect::<Result<Vec<_>, _>>();
        let (queued, spare) = (readers(worker::READERS)?, readers(worker::POINT_READERS)?);
        Ok(Self { workers: Arc::new(Workers::start(writer, queued, spare, lock)?), quotas })
    }
}
