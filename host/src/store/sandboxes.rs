//! Sandboxes: the stable handle a client holds. Deleting one leaves a tombstone until what it had is gone.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde::{Deserialize, Serialize};

use crate::auth::{SystemContext, Tenant};

use super::error::{Conflict, StoreError};
use super::lockers::{self, LockerRow, NewLocker};
use super::page::{Listing, Page};
use super::row::{Env, Json, MAX_MESSAGE, MAX_NAME, MAX_SCAN, Millis, cap, cap_all, cap_opt, clip, found};
use super::sessions::{self, SessionKey, SessionRow, SessionState};
use super::{Store, executions};

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
    /// As in answers and in [`STATUS_SQL`].
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

/// [`SandboxRow::status`] in SQL, for the list's filter; a test holds the two together.
const STATUS_SQL: &str = "CASE WHEN s.expires_at <= :now THEN 'expired' WHEN l.state IS NOT NULL THEN l.state \
     WHEN s.failure IS NOT NULL THEN 'failed' ELSE 'idle' END";

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

const COLUMNS: &str = "s.id, s.tenant, s.profile, s.locker_id, s.name, s.labels, s.env, s.capabilities, \
     s.created_at, s.expires_at, s.last_active_at, s.idle_expires_at, s.session_seq, s.generation, s.failure, \
     s.deleted_at, l.id, l.generation, l.state, l.started_at";
const FROM: &str = "sandboxes s LEFT JOIN sessions l \
     ON l.sandbox_id = s.id AND l.state IN ('starting', 'ready', 'stopping')";

fn read(row: &Row<'_>) -> rusqlite::Result<SandboxRow> {
    let session = match row.get::<_, Option<String>>(16)? {
        Some(id) => Some(SessionBrief {
            key: SessionKey { id, generation: row.get(17)? },
            state: row.get(18)?,
            started_at: row.get(19)?,
        }),
        None => None,
    };
    Ok(SandboxRow {
        id: row.get(0)?,
        tenant: row.get(1)?,
        profile: row.get(2)?,
        locker_id: row.get(3)?,
        name: row.get(4)?,
        labels: row.get::<_, Json<_>>(5)?.0,
        env: row.get::<_, Json<_>>(6)?.0,
        capabilities: row.get::<_, Json<_>>(7)?.0,
        created_at: row.get(8)?,
        expires_at: row.get(9)?,
        last_active_at: row.get(10)?,
        idle_expires_at: row.get(11)?,
        session_seq: row.get(12)?,
        generation: row.get(13)?,
        failure: row.get::<_, Option<Json<_>>>(14)?.map(|j| j.0),
        deleted_at: row.get(15)?,
        session,
    })
}

/// A sandbox of this tenant that is not deleted.
pub(super) fn get(db: &Connection, tenant: &Tenant, id: &str) -> Result<SandboxRow, StoreError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE s.id = ?1 AND s.tenant = ?2 AND s.deleted_at IS NULL"
    ))?;
    found(query.query_row((id, tenant), read), "sandbox", id)
}

/// The same, tombstones included.
fn get_any(db: &Connection, tenant: &Tenant, id: &str) -> Result<SandboxRow, StoreError> {
    let mut query =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE s.id = ?1 AND s.tenant = ?2"))?;
    found(query.query_row((id, tenant), read), "sandbox", id)
}

/// Sets or clears the failure, within a transition of its session.
pub(super) fn put_failure(db: &Connection, id: &str, failure: Option<&Failure>) -> Result<(), StoreError> {
    let failure = failure.map(|f| {
        let message = clip(f.message.clone(), MAX_MESSAGE);
        Json(Failure { code: clip(f.code.clone(), MAX_NAME), message, since: f.since })
    });
    db.prepare_cached("UPDATE sandboxes SET failure = ?2 WHERE id = ?1")?.execute((id, failure))?;
    Ok(())
}

/// Notes activity. Time never runs backwards here, whatever order calls end in.
pub(super) fn touch(
    db: &Connection,
    tenant: &Tenant,
    id: &str,
    at: Millis,
    idle_expires_at: Option<Millis>,
) -> Result<(), StoreError> {
    let changed = db
        .prepare_cached(
            "UPDATE sandboxes SET last_active_at = max(last_active_at, ?3), \
             idle_expires_at = CASE WHEN ?4 IS NOT NULL AND EXISTS (SELECT 1 FROM sessions l \
             WHERE l.sandbox_id = sandboxes.id AND l.state IN ('starting', 'ready')) \
             THEN max(coalesce(idle_expires_at, ?4), ?4) ELSE idle_expires_at END \
             WHERE id = ?1 AND tenant = ?2 AND deleted_at IS NULL",
        )?
        .execute((id, tenant, at, idle_expires_at))?;
    if changed == 0 {
        return Err(StoreError::NotFound { resource: "sandbox", id: id.to_owned() });
    }
    Ok(())
}

fn insert(
    db: &Connection,
    tenant: &Tenant,
    mut new: NewSandbox,
    locker: LockerChoice,
) -> Result<(SandboxRow, LockerRow), StoreError> {
    cap("id", &new.id, MAX_NAME)?;
    cap("profile", &new.profile, MAX_NAME)?;
    cap_opt("name", new.name.as_ref(), MAX_NAME)?;
    cap_all("labels", new.labels.iter().flat_map(|(k, v)| [k, v]))?;
    cap_all("env", new.env.0.iter().flat_map(|(k, v)| [k, v]))?;
    cap_all("capabilities", &new.capabilities)?;
    new.capabilities.sort();
    new.capabilities.dedup();
    let locker = match locker {
        LockerChoice::Managed(locker) => lockers::insert(db, tenant, locker, Some(&new.id))?,
        LockerChoice::Existing(id) => lockers::get_external(db, tenant, &id, new.created_at)?,
        LockerChoice::Named(name) => {
            let id = lockers::id_of_name(db, tenant, &name)?;
            lockers::get_external(db, tenant, &id, new.created_at)?
        }
    };
    let made = db
        .prepare_cached(
            "INSERT INTO sandboxes (id, tenant, profile, locker_id, name, labels, env, capabilities, \
             created_at, expires_at, last_active_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?9) ON CONFLICT DO NOTHING",
        )?
        .execute((
            &new.id,
            tenant,
            &new.profile,
            &locker.id,
            &new.name,
            Json(&new.labels),
            Json(&new.env),
            Json(&new.capabilities),
            new.created_at,
            new.expires_at,
        ))?;
    if made == 0 {
        return Err(Conflict::IdTaken.into());
    }
    Ok((get(db, tenant, &new.id)?, locker))
}

fn list(
    db: &Connection,
    tenant: &Tenant,
    filter: &SandboxFilter,
    page: &Page,
) -> Result<Listing<SandboxRow>, StoreError> {
    let (below_at, below_id) = page.below();
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {FROM} \
         WHERE s.tenant = :tenant AND s.deleted_at IS NULL AND (s.created_at, s.id) < (:below_at, :below_id) \
         AND (:profile IS NULL OR s.profile = :profile) \
         AND (:status IS NULL OR {STATUS_SQL} = :status) \
         AND NOT EXISTS (SELECT 1 FROM json_each(:labels) w WHERE NOT EXISTS \
             (SELECT 1 FROM json_each(s.labels) h WHERE h.key = w.key AND h.value = w.value)) \
         ORDER BY s.created_at DESC, s.id DESC LIMIT :rows"
    ))?;
    let rows = query.query_map(
        named_params! {
            ":tenant": tenant,
            ":below_at": below_at,
            ":below_id": below_id,
            ":profile": filter.profile,
            ":status": filter.status.map(|(status, _)| status.as_str()),
            ":now": filter.status.map(|(_, now)| now),
            ":labels": Json(&filter.labels),
            ":rows": page.size() + 1,
        },
        read,
    )?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(Listing::from_rows(rows, page, |row| (row.created_at, &row.id)))
}

fn delete(db: &Connection, tenant: &Tenant, id: &str, at: Millis) -> Result<DeletedSandbox, StoreError> {
    let before = get_any(db, tenant, id)?;
    let again = before.deleted_at.is_some();
    if !again {
        db.prepare_cached(
            "UPDATE sandboxes SET deleted_at = ?2, env = '{}', failure = NULL, idle_expires_at = NULL, \
             generation = generation + 1 WHERE id = ?1",
        )?
        .execute((id, at))?;
        sessions::stop_live(db, id, "the sandbox was deleted")?;
        lockers::mark_managed(db, id, at)?;
        executions::erase_some(db, id)?;
    }
    let sandbox = get_any(db, tenant, id)?;
    let session = sessions::live(db, tenant, id)?;
    let locker = lockers::managed_by(db, id)?;
    Ok(DeletedSandbox { sandbox, session, locker, again })
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
        self.read(tenant, move |db| get(db, &owner, &id)).await
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
        self.read(system, move |db| {
            let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE s.id = ?1"))?;
            Ok(query.query_row([&id], read).optional()?)
        })
        .await
    }
}
