//! What becomes of sessions that have no task: those that an earlier Bay left are taken over after they have proven
//! themselves, what is half done is finished or undone, strangers in our place are removed.
//!
//! Nothing here decides while the driver does not answer: a session that the store calls ready stays ready, and is
//! settled by a later pass (see `recover`).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;

use super::env::is_away;
use super::live::{Live, LiveContainer};
use super::registry::Sessions;
use super::start::references;
use crate::auth::SystemContext;
use crate::driver::{ContainerRef, ContainerStatus};
use crate::error::{ApiError, ApiResult, Code};
use crate::runtime::{RuntimeClient, RuntimeError};
use crate::store::{Failure, LockerRow, SandboxRow, SessionRow, SessionState, StoreError, Transition};
use crate::time::now_ms;

/// How long a running container has to prove itself to a new Bay.
const PROVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many sessions are settled side by side: one that does not answer must not hold up all others.
const SIDE_BY_SIDE: usize = 8;

/// What one pass did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AdoptReport {
    /// Sessions that go on as if nothing had happened.
    pub adopted: usize,
    /// Sessions that had died.
    pub lost: usize,
    /// Starts and stops that were half done.
    pub finished: usize,
    /// Lockers whose removal was half done.
    pub lockers: usize,
    /// Containers that no session of the store names.
    pub strangers: usize,
    /// Executions that were running when Bay ended.
    pub executions: usize,
    /// What could not be done; tried again.
    pub errors: Vec<String>,
}

/// One pass over everything that has no task. Idempotent; tries nothing while the driver is away.
pub(super) async fn pass(
    sessions: &Arc<Sessions>,
    system: &SystemContext,
) -> Result<AdoptReport, StoreError> {
    let env = sessions.env();
    let mut report = AdoptReport::default();
    if let Err(error) = env.driver.health().await {
        report.errors.push(error.to_string());
        return Ok(report);
    }
    settle_all(sessions, system, &mut report).await?;
    for session in env.store.list_pending_removals(system).await?.sessions {
        // Live ones were settled above or have a task; what the driver is still making is not there yet.
        if session.state.is_live() || sessions.unfinished().is_late(&session.id) {
            continue;
        }
        let cleaned = async {
            env.remove(&references(&session), env.stop_grace).await?;
            Ok::<_, ApiError>(env.store.session_cleaned(&session.tenant, &session.key(), now_ms()).await?)
        };
        match cleaned.await {
            Ok(()) => report.finished += 1,
            Err(error) => report.errors.push(format!("session {}: {}", session.id, error.message)),
        }
    }
    for locker in env.store.list_pending_removals(system).await?.lockers {
        match remove_locker(sessions, system, &locker).await {
            Ok(()) => report.lockers += 1,
            Err(error) => report.errors.push(format!("locker {}: {}", locker.id, error.message)),
        }
    }
    remove_strangers(sessions, system, &mut report).await?;
    sessions.unfinished().pass_over();
    Ok(report)
}

/// Removes the volume of a locker that is marked for removal, then its row.
pub(crate) async fn remove_locker(
    sessions: &Sessions,
    system: &SystemContext,
    locker: &LockerRow,
) -> ApiResult<()> {
    let removed = async {
        let env = sessions.env();
        let volume = match &locker.backend_ref {
            Some(volume) => volume.clone(),
            // A crash between making a volume and noting it leaves one without a name; making it again finds it.
            None => env.driver.volume_create(&locker.id).await?,
        };
        env.driver.volume_remove(&volume).await?;
        Ok(env.store.finish_locker_removal(system, &locker.id).await?)
    };
    let removed = removed.await;
    if removed.is_err() {
        sessions.unfinished().wake();
    }
    removed
}

enum Settled {
    Adopted,
    Lost,
    Finished,
    Already,
}

/// Every live session without a task.
async fn settle_all(
    sessions: &Arc<Sessions>,
    system: &SystemContext,
    report: &mut AdoptReport,
) -> Result<(), StoreError> {
    let unfinished = sessions.unfinished();
    for session in sessions.env().store.list_live_sessions(system).await? {
        if !sessions.has_task(&session.sandbox_id) && !unfinished.is_late(&session.id) {
            unfinished.unsettle(&session.sandbox_id);
        }
    }
    let ids = futures::stream::iter(unfinished.all_unsettled());
    let mut settled = ids
        .map(|id| async move {
            let settled = settle(sessions, system, &id).await;
            (id, settled)
        })
        .buffer_unordered(SIDE_BY_SIDE);
    while let Some((id, settled)) = settled.next().await {
        match settled {
            Ok(Settled::Adopted) => report.adopted += 1,
            Ok(Settled::Lost) => report.lost += 1,
            Ok(Settled::Finished) => report.finished += 1,
            Ok(Settled::Already) => {}
            Err(error) => report.errors.push(format!("sandbox {id}: {}", error.message)),
        }
    }
    Ok(())
}

/// Settles one session, in its turn: a stop may be at it, too.
async fn settle(sessions: &Arc<Sessions>, system: &SystemContext, id: &str) -> ApiResult<Settled> {
    let Some(turn) = sessions.unfinished().turn(id) else { return Ok(Settled::Already) };
    let _turn = turn.lock().await;
    if !sessions.unfinished().is_unsettled(id) {
        return Ok(Settled::Already);
    }
    let store = &sessions.env().store;
    // Read anew: the row may have moved on since the turn was asked for.
    let session = match store.find_sandbox(system, id).await? {
        Some(sandbox) => store.live_session(&sandbox.tenant, id).await?.map(|session| (sandbox, session)),
        None => None,
    };
    let settled = match session {
        Some((_, session)) if sessions.unfinished().is_late(&session.id) => Settled::Already,
        Some((sandbox, session)) => decide(sessions, &sandbox, &session).await?,
        None => Settled::Already,
    };
    sessions.unfinished().settled(id);
    Ok(settled)
}

async fn decide(sessions: &Arc<Sessions>, sandbox: &SandboxRow, session: &SessionRow) -> ApiResult<Settled> {
    let env = sessions.env();
    let key = session.key();
    match session.state {
        SessionState::Ready => match live(sessions, session).await {
            Ok(live) => {
                sessions.adopt(sandbox, live);
                Ok(Settled::Adopted)
            }
            Err(Absent::Unknown(error)) => Err(error),
            Err(Absent::Dead(why)) => {
                tracing::warn!(sandbox = %sandbox.id, why, "a session did not survive");
                let message = format!("the sandbox did not survive while Bay was away: {why}");
                let code = Code::RuntimeError.as_str().to_owned();
                let failure = Failure { code, message, since: now_ms() };
                // What is left of it is removed with all other pending removals.
                env.transition(sandbox, &key, Transition::Lost(failure)).await?;
                Ok(Settled::Lost)
            }
        },
        SessionState::Starting | SessionState::Stopping => {
            end(sessions, sandbox, session, "Bay ended while it was starting or stopping").await?;
            Ok(Settled::Finished)
        }
        SessionState::Ended | SessionState::Failed | SessionState::Lost => Ok(Settled::Already),
    }
}

async fn end(sessions: &Sessions, sandbox: &SandboxRow, session: &SessionRow, why: &str) -> ApiResult<()> {
    let env = sessions.env();
    let key = session.key();
    env.transition(sandbox, &key, Transition::Stopping { reason: why.to_owned() }).await?;
    env.remove(&references(session), env.stop_grace).await?;
    env.transition(sandbox, &key, Transition::Ended).await
}

/// Ends a session that has no task, before it was found out how it is. What fails here is finished by a later pass:
/// the row says that it is to end.
pub(super) async fn stop_unsettled(sessions: &Sessions, sandbox: &SandboxRow) -> ApiResult<()> {
    let Some(turn) = sessions.unfinished().turn(&sandbox.id) else { return Ok(()) };
    let _turn = turn.lock().await;
    if !sessions.unfinished().is_unsettled(&sandbox.id) {
        // Settled while this waited for its turn: it has a task now, or is gone.
        return Ok(());
    }
    if let Some(session) = sessions.env().store.live_session(&sandbox.tenant, &sandbox.id).await?
        && let Err(error) = end(sessions, sandbox, &session, "stopped").await
    {
        sessions.unfinished().wake();
        return Err(error);
    }
    sessions.unfinished().settled(&sandbox.id);
    Ok(())
}

/// Why a session could not be taken over.
enum Absent {
    /// It does not run any more, or what runs is not it.
    Dead(String),
    /// The driver could not say.
    Unknown(ApiError),
}

/// The session as it runs, after each of its containers was found alive and proved itself.
async fn live(sessions: &Sessions, session: &SessionRow) -> Result<Live, Absent> {
    let env = sessions.env();
    let mut containers = Vec::with_capacity(session.containers.len());
    for (row, reference) in session.containers.iter().zip(references(session)) {
        let dead = |why: &dyn std::fmt::Display| Absent::Dead(format!("{}: {why}", row.role));
        match env.driver.inspect(&reference).await {
            Ok(ContainerStatus::Running) => {}
            Ok(ContainerStatus::Exited { reason }) => {
                return Err(Absent::Dead(format!("{} ended: {reason}", row.role)));
            }
            Ok(ContainerStatus::Missing) => return Err(Absent::Dead(format!("{} is gone", row.role))),
            Err(error) if is_away(&error) => return Err(Absent::Unknown(error.into())),
            Err(error) => return Err(dead(&error)),
        }
        let credentials = env.credentials(&session.key());
        let client = RuntimeClient::new(Arc::clone(&env.driver), reference.clone(), row.port, credentials);
        let proven = async {
            client.wait_ready(PROVE_TIMEOUT).await?;
            client.meta(PROVE_TIMEOUT).await
        };
        let meta = match proven.await {
            Ok(meta) => meta,
            Err(RuntimeError::Dial(error)) if is_away(&error) => {
                return Err(Absent::Unknown(error.into()));
            }
            Err(error) => return Err(dead(&error)),
        };
        containers.push(LiveContainer {
            name: row.role.clone(),
            adapter: row.adapter.clone(),
            capabilities: row.capabilities.clone(),
            primary_for: row.primary_for.clone(),
            reference,
            client: Arc::new(client),
            meta,
        });
    }
    if containers.is_empty() {
        return Err(Absent::Dead("it has no containers".to_owned()));
    }
    Ok(Live { key: session.key(), seq: session.seq, containers })
}

/// A container of this instance that no live session names: left by a crash between act and record, or put
/// there by somebody. The data directory is ours alone, so it goes.
async fn remove_strangers(
    sessions: &Sessions,
    system: &SystemContext,
    report: &mut AdoptReport,
) -> Result<(), StoreError> {
    let env = sessions.env();
    let found: Vec<ContainerRef> = match env.driver.list().await {
        Ok(found) => found,
        Err(error) => {
            report.errors.push(format!("list: {error}"));
            return Ok(());
        }
    };
    for container in found {
        let owner = env.store.find_container(system, &container.name).await?;
        if owner.is_some_and(|session| session.state.is_live() || session.cleaned_at.is_none()) {
            continue;
        }
        tracing::warn!(container = %container.name, "removing a container that no session names");
        match env.remove(std::slice::from_ref(&container), env.stop_grace).await {
            Ok(()) => report.strangers += 1,
            Err(error) => report.errors.push(format!("{}: {}", container.name, error.message)),
        }
    }
    Ok(())
}
