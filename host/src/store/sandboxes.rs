//! Sandboxes: the stable handle a client holds. Deleting one leaves a tombstone until what it had is gone.

mod change;
mod sql;

use std::collections::BTreeMap;

use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};

use crate::auth::{SystemContext, Tenant};

use super::Store;
use super::error::StoreError;
use super::idempotency::Claim;
use super::lockers::{LockerRow, NewLocker};
use super::page::{Listing, Page};
use super::row::{Env, MAX_SCAN, Millis};
use super::sessions::{SessionKey, SessionRow, SessionState};

pub use change::{ExtendTtl, SandboxPatch};
use sql::{COLUMNS, FROM, delete, insert, list, read};
pub(super) use sql::{get, get_any, put_failure, touch};

/// Why the last start failed, or why a ready session went away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A stable word, for instance `start_failed`.
    pub code: String,
    /// For a person.
    pub message: String,
    /// When.
    pub since: Millis,
}

/// The live session of a sandbox, in brief.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionBrief {
    /// Which.
    pub key: SessionKey,
    /// `starting`, `ready` or `stopping`.
    pub state: SessionState,
    /// When it began.
    pub started_at: Millis,
}

/// A sandbox as stored, with its live session.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRow {
    /// `sbx_…`
    pub id: String,
    /// Its owner.
    pub tenant: Tenant,
    /// Id of its profile, as it was named at creation.
    pub profile: String,
    /// The locker at `/workspace`.
    pub locker_id: String,
    /// Given by the client.
    pub name: Option<String>,
    /// Given by the client.
    pub labels: BTreeMap<String, String>,
    /// Added to the profile's, for user processes only. Secret.
    pub env: Env,
    /// What the profile offered at creation, sorted.
    pub capabilities: Vec<String>,
    /// When it was made.
    pub created_at: Millis,
    /// When its time is up; null: never.
    pub expires_at: Option<Millis>,
    /// The last call or keepalive.
    pub last_active_at: Millis,
    /// When its session is stopped for want of calls; null while there is none.
    pub idle_expires_at: Option<Millis>,
    /// Its own idle time, milliseconds; null: its profile's.
    pub idle_timeout_ms: Option<Millis>,
    /// Number of its latest session; 0 before the first.
    pub session_seq: u64,
    /// Grows with each session and with deletion: what began under an older one is stale.
    pub generation: u64,
    /// Set by a failed start or a lost session, cleared by a good start or [`Store::clear_failure`].
    pub failure: Option<Failure>,
    /// Tombstone.
    pub deleted_at: Option<Millis>,
    /// Its live session, if any.
    pub session: Option<SessionBrief>,
}

/// What a client sees as `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxStatus {
    /// No session; the next call starts one.
    Idle,
    /// A session starts.
    Starting,
    /// A session runs.
    Ready,
    /// A session is being stopped.
    Stopping,
    /// The last start failed or the session was lost; the next call tries again.
    Failed,
    /// Its time is up.
    Expired,
}

impl SandboxStatus {
    /// As in answers and in the list's filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// From a query parameter.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Idle, Self::Starting, Self::Ready, Self::Stopping, Self::Failed, Self::Expired]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

impl SandboxRow {
    /// What a client sees at `now`. Expiry outranks everything, a live session outranks an old failure.
    pub fn status(&self, now: Millis) -> SandboxStatus {
        if self.expires_at.is_some_and(|at| at <= now) {
            return SandboxStatus::Expired;
        }
        match self.session.as_ref().map(|s| s.state) {
            Some(SessionState::Starting) => SandboxStatus::Starting,
            Some(SessionState::Ready) => SandboxStatus::Ready,
            Some(SessionState::Stopping) => SandboxStatus::Stopping,
            Some(SessionState::Ended | SessionState::Failed | SessionState::Lost) | None => {
                if self.failure.is_some() { SandboxStatus::Failed } else { SandboxStatus::Idle }
            }
        }
    }
}

/// A sandbox to be made. Validated at the edge; the store checks its own hard bounds.
#[derive(Debug, Clone)]
pub struct NewSandbox {
    /// From [`crate::id::Kind::Sandbox`].
    pub id: String,
    /// Id of its profile.
    pub profile: String,
    /// For people.
    pub name: Option<String>,
    /// For selection.
    pub labels: BTreeMap<String, String>,
    /// Secret.
    pub env: Env,
    /// What the profile offers; stored sorted and once each.
    pub capabilities: Vec<String>,
    /// Now.
    pub created_at: Millis,
    /// Null: never.
    pub expires_at: Option<Millis>,
    /// The key of the request that makes it: where that has made one already, it is that one and no other is made.
    pub claim: Option<Claim>,
}

/// Where a new sandbox keeps its files.
#[derive(Debug, Clone)]
pub enum LockerChoice {
    /// A managed one, made with the sandbox and gone with it.
    Managed(NewLocker),
    /// An external one of the same tenant, by id.
    Existing(String),
    /// An external one of the same tenant, by name.
    Named(String),
}

/// What a list of sandboxes is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct SandboxFilter {
    /// Exactly this profile.
    pub profile: Option<String>,
    /// All of these labels with exactly these values.
    pub labels: BTreeMap<String, String>,
    /// Exactly this status at this time.
    pub status: Option<(SandboxStatus, Millis)>,
}

/// What [`Store::delete_sandbox`] left to be cleaned up.
#[derive(Debug, Clone)]
pub struct DeletedSandbox {
    /// The sandbox, now a tombstone.
    pub sandbox: SandboxRow,
    /// Its session, now `stopping`: its containers are to go, then [`Transition::Ended`](super::Transition).
    pub session: Option<SessionRow>,
    /// Its managed locker, marked for removal: its volume is to go, then [`Store::finish_locker_removal`].
    pub locker: Option<LockerRow>,
    /// It was deleted before; what is listed here is what is still left.
    pub again: bool,
}

impl Store {
    /// Makes a sandbox and, unless it uses an existing one, its locker: both or neither.
    pub async fn create_sandbox(
        &self,
        tenant: &Tenant,
        new: NewSandbox,
        locker: LockerChoice,
    ) -> Result<(SandboxRow, LockerRow), StoreError> {
        let owner = tenant.clone();
        self.write(tenant, move |db| insert(db, &owner, new, locker)).await
    }

    /// One sandbox. Deleted ones are not found.
    pub async fn get_sandbox(&self, tenant: &Tenant, id: &str) -> Result<SandboxRow, StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.read_row(tenant, move |db| get(db, &owner, &id)).await
    }

    /// Newest first.
    pub async fn list_sandboxes(
        &self,
        tenant: &Tenant,
        filter: SandboxFilter,
        page: Page,
    ) -> Result<Listing<SandboxRow>, StoreError> {
        let owner = tenant.clone();
        self.read(tenant, move |db| list(db, &owner, &filter, &page)).await
    }

    /// Notes a call or keepalive at `at`; `idle_expires_at`, when given, only ever moves later, and only while
    /// there is a session to be stopped at that time.
    pub async fn touch_sandbox(
        &self,
        tenant: &Tenant,
        id: &str,
        at: Millis,
        idle_expires_at: Option<Millis>,
    ) -> Result<(), StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write(tenant, move |db| touch(db, &owner, &id, at, idle_expires_at)).await
    }

    /// Notes a failure that belongs to no transition of a session.
    pub async fn set_failure(&self, tenant: &Tenant, id: &str, failure: Failure) -> Result<(), StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write(tenant, move |db| {
            get(db, &owner, &id)?;
            put_failure(db, &id, Some(&failure))
        })
        .await
    }

    /// Forgets the failure.
    pub async fn clear_failure(&self, tenant: &Tenant, id: &str) -> Result<(), StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write(tenant, move |db| {
            get(db, &owner, &id)?;
            put_failure(db, &id, None)
        })
        .await
    }

    /// Turns a sandbox into a tombstone, its session to `stopping` and its managed locker to be removed, all at
    /// once, and says what is left to clean up. Deleting again answers the same; never seen is not found.
    pub async fn delete_sandbox(
        &self,
        tenant: &Tenant,
        id: &str,
        at: Millis,
    ) -> Result<DeletedSandbox, StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write(tenant, move |db| delete(db, &owner, &id, at)).await
    }

    /// Sandboxes whose time was up at `now`, soonest expiry first.
    pub async fn list_expired_sandboxes(
        &self,
        system: &SystemContext,
        now: Millis,
    ) -> Result<Vec<SandboxRow>, StoreError> {
        self.read(system, move |db| {
            let mut query = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM {FROM} WHERE s.expires_at <= ?1 AND s.deleted_at IS NULL \
                 ORDER BY s.expires_at LIMIT {MAX_SCAN}"
            ))?;
            Ok(query.query_map([now], read)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Sandboxes with a ready session that nothing has called for longer than their idle time.
    pub async fn list_idle_sandboxes(
        &self,
        system: &SystemContext,
        now: Millis,
    ) -> Result<Vec<SandboxRow>, StoreError> {
        self.read(system, move |db| {
            let mut query = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM {FROM} WHERE s.idle_expires_at <= ?1 AND s.deleted_at IS NULL \
                 AND l.state = 'ready' ORDER BY s.idle_expires_at LIMIT {MAX_SCAN}"
            ))?;
            Ok(query.query_map([now], read)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Removes tombstones older than `before` of which nothing is left but the row, with their sessions and
    /// executions. Answers how many; at most a thousand at once.
    pub async fn purge_tombstones(
        &self,
        system: &SystemContext,
        before: Millis,
    ) -> Result<usize, StoreError> {
        self.write(system, move |db| {
            let purged = db
                .prepare_cached(
                    "DELETE FROM sandboxes WHERE id IN (SELECT s.id FROM sandboxes s \
                     WHERE s.deleted_at < ?1 \
                     AND NOT EXISTS (SELECT 1 FROM sessions l WHERE l.sandbox_id = s.id AND l.cleaned_at IS NULL) \
                     AND NOT EXISTS (SELECT 1 FROM lockers k WHERE k.managed_by = s.id) \
                     AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.sandbox_id = s.id) \
                     LIMIT 1000)",
                )?
                .execute([before])?;
            Ok(purged)
        })
        .await
    }

    /// A sandbox by id alone, tombstones included: what reconcile needs to judge a session it found.
    pub async fn find_sandbox(
        &self,
        system: &SystemContext,
        id: &str,
    ) -> Result<Option<SandboxRow>, StoreError> {
        let id = id.to_owned();
        self.read_row(system, move |db| {
            let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE s.id = ?1"))?;
            Ok(query.query_row([&id], read).optional()?)
        })
        .await
    }
}
