//! What becomes of sessions that have no task: those that an earlier Bay left are taken over after they have proven
//! themselves, what is half done is finished or undone, strangers are removed where the place is ours alone and told of
//! where it is not.
//!
//! Nothing here decides while the driver does not answer: a session that the store calls ready stays ready, and is
//! settled by a later pass (see `recover`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;

use super::live::{Live, LiveContainer};
use super::registry::Sessions;
use super::start::references;
use crate::auth::SystemContext;
use crate::driver::{ContainerRef, ContainerStatus, DriverError};
use crate::error::{ApiError, ApiResult, Code};
use crate::id::Kind;
use crate::runtime::{RuntimeClient, RuntimeError};
use crate::store::{Failure, LockerRow, SandboxRow, SessionRow, SessionState, StoreError, Transition};
use crate::time::now_ms;

/// How long a running container has to prove itself to a new Bay.
const PROVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many sessions are settled side by side: one that does not answer must not hold up all others.
const SIDE_BY_SIDE: usize = 8;
/// The driver whose containers are in our own data directory.
const LOCAL: &str = "local";

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
    /// Containers that were removed although no session that lives names them.
    pub strangers: usize,
    /// Containers with this Bay's labels that the store knows nothing of: told in the log, and left alone.
    pub reported: usize,
    /// Executions that were running when Bay ended.
    pub executions: usize,
    /// What could not be done; tried again.
    pub errors: Vec<String>,
    /// Whether the driver went away, so that the rest was not tried.
    pub away: bool,
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
        report.away = true;
        return Ok(report);
    }
    settle_all(sessions, system, &mut report).await?;
    // Without the driver nothing of the rest can be done, and each try would cost its own time out.
    if report.away {
        return Ok(report);
    }
    remove_pending(sessions, system, &mut report).await?;
    if report.away {
        return Ok(report);
    }
    remove_strangers(sessions, system, &mut report).await?;
    sessions.unfinished().pass_over();
    Ok(report)
}

/// Whether an error came of a driver that does not answer, rather than of what it was asked about: asked again, since
/// one container that is stuck must not keep all others from being dealt with.
async fn driver_is_away(sessions: &Sessions, error: &ApiError) -> bool {
    error.code == Code::Unavailable && sessions.env().driver.health().await.is_err()
}

/// What sessions that are over left, and the lockers that are to go.
async fn remove_pending(
    sessions: &Sessions,
    system: &SystemContext,
    report: &mut AdoptReport,
) -> Result<(), StoreError> {
    let (env, unfinished) = (sessions.env(), sessions.unfinished());
    let mut left = env.store.list_pending_removals(system).await?.sessions;
    // Live ones were settled above or have a task; what the driver is still making is not there yet; of an unsettled
    // sandbox it has just been tried.
    left.retain(|session| {
        !session.state.is_live()
            && !unfinished.is_late(&session.id)
            && !unfinished.is_unsettled(&session.sandbox_id)
    });
    let mut cleaned = futures::stream::iter(left)
        .map(|session| async move {
            let cleaned = clean(sessions, &session).await;
            (session.id, cleaned)
        })
        .buffer_unordered(SIDE_BY_SIDE);
    while let Some((id, cleaned)) = cleaned.next().await {
        match cleaned {
            Ok(()) => report.finished += 1,
            Err(error) => {
                report.errors.push(format!("session {id}: {}", error.message));
                if driver_is_away(sessions, &error).await {
                    report.away = true;
                    return Ok(());
                }
            }
        }
    }
    let lockers = env.store.list_pending_removals(system).await?.lockers;
    let mut removed = futures::stream::iter(lockers)
        .map(|locker| async move {
            let removed = remove_volume_and_row(sessions, system, &locker).await;
            (locker.id, removed)
        })
        .buffer_unordered(SIDE_BY_SIDE);
    while let Some((id, removed)) = removed.next().await {
        match removed {
            Ok(()) => report.lockers += 1,
            Err(error) => {
                report.errors.push(format!("locker {id}: {}", error.message));
                if driver_is_away(sessions, &error).await {
                    report.away = true;
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Removes what a session that is over left, and says so in the store.
async fn clean(sessions: &Sessions, session: &SessionRow) -> ApiResult<()> {
    let env = sessions.env();
    env.remove(&references(session), env.stop_grace).await?;
    Ok(env.store.session_cleaned(&session.tenant, &session.key(), now_ms()).await?)
}

/// Removes what earlier sessions of a sandbox left. Until that is done no other session may start: both would have
/// the same locker.
async fn clean_earlier(sessions: &Sessions, system: &SystemContext, sandbox_id: &str) -> ApiResult<()> {
    for session in sessions.env().store.list_pending_removals(system).await?.sessions {
        let over = session.sandbox_id == sandbox_id && !session.state.is_live();
        if over && !sessions.unfinished().is_late(&session.id) {
            end_for_good(sessions, &session).await?;
        }
    }
    Ok(())
}

/// Sees to it that nothing of a session that is over runs on its locker any more. What else of it cannot be removed
/// yet, such as a network that somebody else is in, does not keep its sandbox from going on: later passes try again.
async fn end_for_good(sessions: &Sessions, session: &SessionRow) -> ApiResult<()> {
    let Err(error) = clean(sessions, session).await else { return Ok(()) };
    for container in references(session) {
        match sessions.env().driver.inspect(&container).await {
            Ok(ContainerStatus::Missing | ContainerStatus::Exited { .. }) => {}
            Ok(ContainerStatus::Running) | Err(_) => return Err(error),
        }
    }
    tracing::warn!(session = %session.id, error = %error.message, "something of a session could not be removed yet");
    Ok(())
}

/// Removes the volume of a locker that is marked for removal, then its row. What fails is tried again by a pass.
pub(crate) async fn remove_locker(
    sessions: &Sessions,
    system: &SystemContext,
    locker: &LockerRow,
) -> ApiResult<()> {
    let removed = remove_volume_and_row(sessions, system, locker).await;
    if removed.is_err() {
        sessions.unfinished().wake();
    }
    removed
}

/// Wakes nobody: a pass that woke the next one would never come to rest.
async fn remove_volume_and_row(
    sessions: &Sessions,
    system: &SystemContext,
    locker: &LockerRow,
) -> ApiResult<()> {
    let env = sessions.env();
    let volume = match &locker.backend_ref {
        Some(volume) => volume.clone(),
        // A crash between making a volume and noting it leaves one without a name; making it again finds it.
        None => env.driver.volume_create(&locker.id).await?,
    };
    env.driver.volume_remove(&volume).await?;
    Ok(env.store.finish_locker_removal(system, &locker.id).await?)
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
            Err(error) => {
                report.errors.push(format!("sandbox {id}: {}", error.message));
                if driver_is_away(sessions, &error).await {
                    report.away = true;
                    break;
                }
            }
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
        // Its last session may be over and still have its containers.
        None => {
            clean_earlier(sessions, system, id).await?;
            Settled::Already
        }
    };
    sessions.unfinished().settled(id);
    Ok(settled)
}

async fn decide(sessions: &Arc<Sessions>, sandbox: &SandboxRow, session: &SessionRow) -> ApiResult<Settled> {
    let env = sessions.env();
    let key = session.key();
    if Kind::Files.is(&sandbox.id) {
        // Whoever waited for it went away with the Bay that made it.
        end(sessions, sandbox, session, "Bay ended while a locker's files were served").await?;
        return Ok(Settled::Finished);
    }
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
                env.transition(sandbox, &key, Transition::Lost(failure)).await?;
                // It may run all the same: it must be gone before the sandbox counts as settled and starts another.
                end_for_good(sessions, session).await?;
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
    let ended = match sessions.env().store.live_session(&sandbox.tenant, &sandbox.id).await? {
        Some(session) => end(sessions, sandbox, &session, "stopped").await,
        None => clean_earlier(sessions, &SystemContext::for_background(), &sandbox.id).await,
    };
    // A pass finishes what failed, and what could be left for later.
    sessions.unfinished().wake();
    ended?;
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
            Err(error) if error.is_away() => return Err(Absent::Unknown(error.into())),
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
            Err(RuntimeError::Dial(error)) if error.is_away() => {
                // A container that the driver sees running, and that nobody can reach, is not the driver's absence.
                let timeout = matches!(error, DriverError::Timeout { .. });
                if timeout && env.driver.inspect(&reference).await.is_ok() {
                    return Err(dead(&error));
                }
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

/// Containers of this instance that no live session names. The row of a session is written before its containers are
/// made, so that what a crash leaves behind has a row. One without was put there by somebody: labels can be copied by
/// everyone who may use the engine, so it is told and left alone; the local driver's data directory is ours alone.
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
    let (mut to_remove, mut unknown) = (Vec::new(), HashSet::new());
    for container in found {
        match env.store.find_container(system, &container.name).await? {
            Some(session) if session.state.is_live() || session.cleaned_at.is_none() => {}
            None if env.driver.name() != LOCAL => {
                unknown.insert(container.name);
            }
            Some(_) | None => to_remove.push(container),
        }
    }
    report.reported = unknown.len();
    for name in sessions.unfinished().newly_reported(unknown) {
        tracing::warn!(
            container = %name,
            "a container, or a network of this name, has this Bay's labels, and no session names it; it is left \
             alone: remove it by hand",
        );
    }
    let mut removed = futures::stream::iter(to_remove)
        .map(|container| async move {
            tracing::warn!(container = %container.name, "removing a container that no live session names");
            let removed = env.remove(std::slice::from_ref(&container), env.stop_grace).await;
            (container.name, removed)
        })
        .buffer_unordered(SIDE_BY_SIDE);
    while let Some((name, removed)) = removed.next().await {
        match removed {
            Ok(()) => report.strangers += 1,
            Err(error) => report.errors.push(format!("{name}: {}", error.message)),
        }
    }
    Ok(())
}
