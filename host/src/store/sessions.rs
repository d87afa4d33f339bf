//! Sessions: one set of running containers behind a sandbox. A row is the intent, written before the driver acts.
//!
//! ```text
//!               ┌────────────▶ failed        the start did not work
//!  begin ─▶ starting ─▶ ready ─▶ lost        a container died under it
//!               │         │
//!               └────▶ stopping ─▶ ended     stopped on purpose; everything of it is gone
//! ```
//!
//! `starting`, `ready` and `stopping` are *live*: a sandbox has at most one such session, by a unique index.
//! Every transition is compare-and-set on (id, generation, state). `failed` and `lost` sessions may have left
//! containers behind: they are *uncleaned* until [`Store::session_cleaned`].

mod sql;

use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};

use crate::auth::{SystemContext, Tenant};
use crate::id::Kind;

use super::error::{Conflict, StoreError};
use super::lockers::LockerRow;
use super::row::{Json, LIVE, MAX_JSON, Millis, text_enum};
use super::sandboxes::Failure;
use super::{Store, lockers};

use sql::{COLUMNS, advance, begin, get, get_current, query_all, read};
pub(super) use sql::{live, stop_live};

/// Most containers in one session.
const MAX_CONTAINERS: usize = 32;

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// The intent is written; containers are being made.
    Starting,
    /// Its containers run and answer.
    Ready,
    /// Its containers are being removed.
    Stopping,
    /// Stopped, and everything of it is gone.
    Ended,
    /// The start did not work.
    Failed,
    /// A container died under it.
    Lost,
}

text_enum!(SessionState {
    Starting = "starting",
    Ready = "ready",
    Stopping = "stopping",
    Ended = "ended",
    Failed = "failed",
    Lost = "lost",
});

impl SessionState {
    /// Whether it counts as the sandbox's one session.
    pub fn is_live(self) -> bool {
        match self {
            Self::Starting | Self::Ready | Self::Stopping => true,
            Self::Ended | Self::Failed | Self::Lost => false,
        }
    }
}

/// What a transition is compared against: a session in one generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionKey {
    /// `ses_…`
    pub id: String,
    /// The sandbox's generation in which it began.
    pub generation: u64,
}

/// A step in a session's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// `starting → ready`; clears the sandbox's failure.
    Ready,
    /// `starting | ready → stopping`.
    Stopping {
        /// Why, for the log and for people.
        reason: String,
    },
    /// `stopping → ended`: say so only when every container of it is gone.
    Ended,
    /// `starting → failed`; becomes the sandbox's failure.
    Failed(Failure),
    /// `ready → lost`; becomes the sandbox's failure.
    Lost(Failure),
}

impl Transition {
    /// Where it leads.
    pub fn target(&self) -> SessionState {
        match self {
            Self::Ready => SessionState::Ready,
            Self::Stopping { .. } => SessionState::Stopping,
            Self::Ended => SessionState::Ended,
            Self::Failed(_) => SessionState::Failed,
            Self::Lost(_) => SessionState::Lost,
        }
    }

    /// Whether it may start from `state`.
    pub fn starts_from(&self, state: SessionState) -> bool {
        match self {
            Self::Ready | Self::Failed(_) => state == SessionState::Starting,
            Self::Stopping { .. } => matches!(state, SessionState::Starting | SessionState::Ready),
            Self::Ended => state == SessionState::Stopping,
            Self::Lost(_) => state == SessionState::Ready,
        }
    }
}

/// One container of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRow {
    /// The driver's name, `bay-<session>-<generation>-<role>`; known before the container is.
    pub name: String,
    /// Its name within the profile, for instance `ship`.
    pub role: String,
    /// What the driver needs to find it again, opaque here; null until it was created.
    pub container_ref: Option<serde_json::Value>,
    /// The adapter that speaks to it.
    pub adapter: String,
    /// Port of its runtime.
    pub port: u16,
    /// What it serves.
    pub capabilities: Vec<String>,
    /// What it serves before others.
    pub primary_for: Vec<String>,
}

/// A container that a session is about to have.
#[derive(Debug, Clone)]
pub struct NewContainer {
    /// Its name within the profile.
    pub role: String,
    /// The adapter that speaks to it.
    pub adapter: String,
    /// Port of its runtime.
    pub port: u16,
    /// What it serves.
    pub capabilities: Vec<String>,
    /// What it serves before others.
    pub primary_for: Vec<String>,
}

/// A session as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// `ses_…`, never shown to clients.
    pub id: String,
    /// Whose session it is.
    pub sandbox_id: String,
    /// Its owner.
    pub tenant: Tenant,
    /// The number a client sees.
    pub seq: u64,
    /// See [`SessionKey`].
    pub generation: u64,
    /// Where it is.
    pub state: SessionState,
    /// When it began.
    pub started_at: Millis,
    /// When it stopped being live.
    pub ended_at: Option<Millis>,
    /// Why it stopped.
    pub reason: Option<String>,
    /// Its containers, as far as they are known.
    pub containers: Vec<ContainerRow>,
    /// When every container of it was known to be gone.
    pub cleaned_at: Option<Millis>,
}

impl SessionRow {
    /// What to compare transitions against.
    pub fn key(&self) -> SessionKey {
        SessionKey { id: self.id.clone(), generation: self.generation }
    }
}

/// What a reconcile finishes.
#[derive(Debug, Clone, Default)]
pub struct PendingRemovals {
    /// Sessions that are `stopping`, or ended badly and may have left containers behind.
    pub sessions: Vec<SessionRow>,
    /// Lockers marked for removal that no session uses any more.
    pub lockers: Vec<LockerRow>,
}

impl Store {
    /// Writes the intent to start a session: the next number and generation, its containers named but not made.
    /// Refused while another is live, when the sandbox expired, and when it is gone.
    pub async fn begin_session(
        &self,
        tenant: &Tenant,
        sandbox_id: &str,
        containers: Vec<NewContainer>,
        at: Millis,
    ) -> Result<SessionRow, StoreError> {
        let (owner, sandbox_id) = (tenant.clone(), sandbox_id.to_owned());
        self.write(tenant, move |db| begin(db, &owner, &sandbox_id, containers, at)).await
    }

    /// Notes what became of the containers: after create, and again after start. Only while it is live, and only
    /// the containers it began with.
    pub async fn set_session_containers(
        &self,
        tenant: &Tenant,
        key: &SessionKey,
        containers: Vec<ContainerRow>,
    ) -> Result<(), StoreError> {
        let (owner, key) = (tenant.clone(), key.clone());
        self.write(tenant, move |db| {
            let session = get_current(db, &owner, &key)?;
            if !session.containers.iter().map(|c| &c.name).eq(containers.iter().map(|c| &c.name)) {
                return Err(StoreError::Internal { reason: "other containers than it began with".into() });
            }
            let text = Json(&containers);
            let size = serde_json::to_string(&text.0).map_or(usize::MAX, |t| t.len());
            if size > MAX_JSON {
                return Err(StoreError::TooLarge { field: "containers", max: MAX_JSON });
            }
            db.prepare_cached("UPDATE sessions SET containers = ?3 WHERE id = ?1 AND generation = ?2")?
                .execute((&key.id, key.generation, text))?;
            Ok(())
        })
        .await
    }

    /// Takes a step. [`Conflict::Stale`] when someone else took another one first.
    pub async fn transition_session(
        &self,
        tenant: &Tenant,
        key: &SessionKey,
        step: Transition,
        at: Millis,
    ) -> Result<SessionRow, StoreError> {
        let (owner, key) = (tenant.clone(), key.clone());
        self.write(tenant, move |db| advance(db, &owner, &key, &step, at)).await
    }

    /// Everything that a `failed` or `lost` session left behind is gone. Idempotent; a live one is a conflict.
    pub async fn session_cleaned(
        &self,
        tenant: &Tenant,
        key: &SessionKey,
        at: Millis,
    ) -> Result<(), StoreError> {
        let (owner, key) = (tenant.clone(), key.clone());
        self.write(tenant, move |db| {
            let session = get(db, &owner, &key.id)?;
            if session.generation != key.generation || session.state.is_live() {
                return Err(Conflict::Stale.into());
            }
            db.prepare_cached("UPDATE sessions SET cleaned_at = coalesce(cleaned_at, ?2) WHERE id = ?1")?
                .execute((&key.id, at))?;
            Ok(())
        })
        .await
    }

    /// The live session of a sandbox, of a deleted one too (it is `stopping` then).
    pub async fn live_session(
        &self,
        tenant: &Tenant,
        sandbox_id: &str,
    ) -> Result<Option<SessionRow>, StoreError> {
        let (owner, sandbox_id) = (tenant.clone(), sandbox_id.to_owned());
        self.read_row(tenant, move |db| live(db, &owner, &sandbox_id)).await
    }

    /// One session, live or not.
    pub async fn get_session(&self, tenant: &Tenant, id: &str) -> Result<SessionRow, StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.read_row(tenant, move |db| get(db, &owner, &id)).await
    }

    /// Every live session: what a Bay that starts adopts, finishes or undoes.
    pub async fn list_live_sessions(&self, system: &SystemContext) -> Result<Vec<SessionRow>, StoreError> {
        // Live sessions are never cleaned: said here, too, it lets the index of uncleaned ones answer.
        self.read(system, |db| query_all(db, &format!("cleaned_at IS NULL AND {LIVE}"))).await
    }

    /// Everything half removed.
    pub async fn list_pending_removals(&self, system: &SystemContext) -> Result<PendingRemovals, StoreError> {
        self.read(system, |db| {
            let sessions = query_all(db, "cleaned_at IS NULL AND state NOT IN ('starting', 'ready')")?;
            Ok(PendingRemovals { sessions, lockers: lockers::removable(db)? })
        })
        .await
    }

    /// Whose container this is, by the driver's name for it: the session whose intent names it, live or not.
    /// A container without one is a stranger, whatever its labels say.
    pub async fn find_container(
        &self,
        system: &SystemContext,
        name: &str,
    ) -> Result<Option<SessionRow>, StoreError> {
        let name = name.to_owned();
        self.read_row(system, move |db| {
            // The name begins with the session's id in the driver's spelling; the row itself has the last word.
            let Some(id) = name.strip_prefix("bay-ses-").and_then(|rest| rest.get(..26)) else {
                return Ok(None);
            };
            let id = format!("ses_{id}");
            if !Kind::Session.is(&id) {
                return Ok(None);
            }
            let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1"))?;
            let session = query.query_row([&id], read).optional()?;
            Ok(session.filter(|s| s.containers.iter().any(|c| c.name == name)))
        })
        .await
    }
}
