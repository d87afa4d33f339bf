//! What a Bay that starts does with what an earlier one left: running sessions are taken over after they have
//! proven themselves, half-done things are finished or undone, strangers in our place are removed.

use std::sync::Arc;
use std::time::Duration;

use super::live::{Live, LiveContainer};
use super::registry::Sessions;
use super::start::references;
use crate::auth::SystemContext;
use crate::driver::{ContainerRef, ContainerStatus};
use crate::error::{ApiError, ApiResult, Code};
use crate::runtime::RuntimeClient;
use crate::store::{Failure, LockerRow, SandboxRow, SessionRow, SessionState, StoreError, Transition};
use crate::time::now_ms;

/// How long a running container has to prove itself to a new Bay.
const PROVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What [`adopt`] did.
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
    /// What could not be done; tried again at the next start-up.
    pub errors: Vec<String>,
}

/// Runs once, before the first request is taken.
pub async fn adopt(sessions: &Arc<Sessions>, system: &SystemContext) -> Result<AdoptReport, StoreError> {
    let env = sessions.env();
    let mut report = AdoptReport {
        executions: env.store.mark_executions_lost(system, now_ms(), "Bay was restarted meanwhile").await?,
        ..AdoptReport::default()
    };
    for session in env.store.list_live_sessions(system).await? {
        let Some(sandbox) = env.store.find_sandbox(system, &session.sandbox_id).await? else { continue };
        match settle(sessions, &sandbox, &session).await {
            Ok(Settled::Adopted) => report.adopted += 1,
            Ok(Settled::Lost) => report.lost += 1,
            Ok(Settled::Finished) => report.finished += 1,
            Err(error) => report.errors.push(format!("session {}: {}", session.id, error.message)),
        }
    }
    let pending = env.store.list_pending_removals(system).await?;
    for session in pending.sessions.iter().filter(|s| !s.state.is_live()) {
        let cleaned = async {
            env.remove(&references(session)).await?;
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
    Ok(report)
}

/// Removes the volume of a locker that is marked for removal, then its row.
pub(crate) async fn remove_locker(
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
}

async fn settle(sessions: &Arc<Sessions>, sandbox: &SandboxRow, session: &SessionRow) -> ApiResult<Settled> {
    let env = sessions.env();
    let key = session.key();
    match session.state {
        SessionState::Ready => match live(sessions, session).await {
            Ok(live) => {
                sessions.adopt(sandbox, live);
                Ok(Settled::Adopted)
            }
            Err(why) => {
                tracing::warn!(sandbox = %sandbox.id, why, "a session did not survive");
                let message = format!("the sandbox did not survive while Bay was away: {why}");
                let code = Code::RuntimeError.as_str().to_owned();
                let failure = Failure { code, message, since: now_ms() };
                env.transition(sandbox, &key, Transition::Lost(failure)).await?;
                env.remove(&references(session)).await?;
                env.store.session_cleaned(&sandbox.tenant, &key, now_ms()).await?;
                Ok(Settled::Lost)
            }
        },
        SessionState::Starting | SessionState::Stopping => {
            let reason = "Bay ended while it was starting or stopping".to_owned();
            env.transition(sandbox, &key, Transition::Stopping { reason }).await?;
            env.remove(&references(session)).await?;
            env.transition(sandbox, &key, Transition::Ended).await?;
            Ok(Settled::Finished)
        }
        SessionState::Ended | SessionState::Failed | SessionState::Lost => Ok(Settled::Finished),
    }
}

/// The session as it runs, after each of its containers was found alive and proved itself.
async fn live(sessions: &Sessions, session: &SessionRow) -> Result<Live, String> {
    let env = sessions.env();
    let mut containers = Vec::with_capacity(session.containers.len());
    for (row, reference) in session.containers.iter().zip(references(session)) {
        match env.driver.inspect(&reference).await {
            Ok(ContainerStatus::Running) => {}
            Ok(ContainerStatus::Exited { reason }) => return Err(format!("{} ended: {reason}", row.role)),
            Ok(ContainerStatus::Missing) => return Err(format!("{} is gone", row.role)),
            Err(error) => return Err(format!("{}: {error}", row.role)),
        }
        let credentials = env.credentials(&session.key());
        let client = RuntimeClient::new(Arc::clone(&env.driver), reference.clone(), row.port, credentials);
        client.wait_ready(PROVE_TIMEOUT).await.map_err(|e| format!("{}: {e}", row.role))?;
        let meta = client.meta(PROVE_TIMEOUT).await.map_err(|e| format!("{}: {e}", row.role))?;
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
        return Err("it has no containers".to_owned());
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
        match env.remove(std::slice::from_ref(&container)).await {
            Ok(()) => report.strangers += 1,
            Err(error) => report.errors.push(format!("{}: {}", container.name, error.message)),
        }
    }
    Ok(())
}
