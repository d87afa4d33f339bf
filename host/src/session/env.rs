//! What every session needs: driver, store, profiles, the instance's secret; and the effects on them.

use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::handshake::Credentials;
use futures::future::{BoxFuture, select_all};

use super::live::{Live, LiveContainer};
use crate::driver::{ContainerRef, ContainerStatus, Driver, DriverError};
use crate::error::{ApiError, ApiResult};
use crate::id::Kind;
use crate::profile::{Profile, Profiles, files_only};
use crate::store::{Conflict, Failure, SandboxRow, SessionKey, Store, StoreError, Transition};
use crate::time::now_ms;

/// Pause before a driver that did not answer is asked again how a container is.
const WAIT_AGAIN: Duration = Duration::from_secs(1);

/// Shared by all session tasks.
pub struct SessionEnv {
    /// Runs the containers.
    pub driver: Arc<dyn Driver>,
    /// Remembers them.
    pub store: Store,
    /// Says what they are.
    pub profiles: Arc<Profiles>,
    /// From which handshake tokens derive.
    pub secret: Vec<u8>,
    /// Names this Bay on labels.
    pub instance_id: String,
    /// Longest start.
    pub start_timeout: Duration,
    /// How long user code may take to end by itself.
    pub stop_grace: Duration,
    /// How often a ready session is asked whether it is well.
    pub probe_interval: Duration,
}

impl SessionEnv {
    pub(super) fn credentials(&self, key: &SessionKey) -> Credentials {
        Credentials::derive(&self.secret, &key.id, key.generation)
    }

    /// What a session of this sandbox consists of; null where its profile is no longer there.
    pub(super) fn profile(&self, sandbox: &SandboxRow) -> Option<Arc<Profile>> {
        let profile = self.profiles.get(&sandbox.tenant, &sandbox.profile)?;
        if Kind::Files.is(&sandbox.id) { files_only(&profile).map(Arc::new) } else { Some(profile) }
    }

    /// Until the session ends by idleness or by the sandbox's expiry; zero when it is due.
    pub(super) fn time_left(&self, sandbox: &SandboxRow, last_used: i64) -> Duration {
        let idle_timeout = sandbox.idle_timeout_ms.or_else(|| {
            let profile = self.profile(sandbox)?;
            i64::try_from(profile.idle_timeout.as_millis()).ok()
        });
        let idle = idle_timeout.map_or(i64::MAX, |ms| last_used.saturating_add(ms));
        let due = sandbox.expires_at.map_or(idle, |at| at.min(idle));
        Duration::from_millis(u64::try_from(due.saturating_sub(now_ms())).unwrap_or(0))
            // A sleep has an end even when nothing does, so that a changed profile is seen.
            .min(Duration::from_secs(60))
    }

    /// Resolves when any container of the session has ended, with the reason.
    pub(super) async fn first_death(&self, live: &Live) -> String {
        let mut waits: Vec<BoxFuture<'_, String>> = Vec::with_capacity(live.containers.len());
        for container in &live.containers {
            waits.push(Box::pin(self.death(container)));
        }
        select_all(waits).await.0
    }

    async fn death(&self, container: &LiveContainer) -> String {
        loop {
            return match self.driver.wait(&container.reference).await {
                Ok(ContainerStatus::Exited { reason }) => format!("{}: {reason}", container.name),
                Ok(ContainerStatus::Missing | ContainerStatus::Running) => {
                    format!("{}: gone", container.name)
                }
                // A driver that does not answer says nothing of the container.
                Err(error) if error.is_away() => {
                    tokio::time::sleep(WAIT_AGAIN).await;
                    continue;
                }
                Err(error) => format!("{}: {error}", container.name),
            };
        }
    }

    /// Whether every container answers `/health`.
    pub(super) async fn healthy(&self, live: &Live, patience: Duration) -> bool {
        let mut probes: Vec<BoxFuture<'_, bool>> = Vec::with_capacity(live.containers.len());
        for container in &live.containers {
            let health = container.client.health(patience);
            probes.push(Box::pin(async { health.await.is_ok_and(|h| h.status == "healthy") }));
        }
        futures::future::join_all(probes).await.into_iter().all(|healthy| healthy)
    }

    /// Stops and removes the containers, then says so in the store.
    pub(super) async fn stop(&self, sandbox: &SandboxRow, live: &Live) -> ApiResult<()> {
        self.transition(sandbox, &live.key, Transition::Stopping { reason: "stopped".to_owned() }).await?;
        self.remove(&live.references(), self.stop_grace).await?;
        self.transition(sandbox, &live.key, Transition::Ended).await
    }

    /// Removes the containers of a lost session.
    pub(super) async fn record_lost(
        &self,
        sandbox: &SandboxRow,
        live: &Live,
        error: &ApiError,
    ) -> ApiResult<()> {
        self.transition(sandbox, &live.key, Transition::Lost(failure(error))).await?;
        self.remove(&live.references(), self.stop_grace).await?;
        Ok(self.store.session_cleaned(&sandbox.tenant, &live.key, now_ms()).await?)
    }

    /// Stops and removes containers, side by side; the first error is told.
    pub(super) async fn remove(&self, containers: &[ContainerRef], grace: Duration) -> ApiResult<()> {
        let removals = containers.iter().map(|container| async move {
            self.driver.stop(container, grace).await?;
            self.driver.destroy(container).await
        });
        let results = futures::future::join_all(removals).await;
        results.into_iter().collect::<Result<(), DriverError>>().map_err(ApiError::from)
    }

    /// Moves a session on. One that has moved on already (a deletion marks it `stopping`) is no error.
    pub(super) async fn transition(
        &self,
        sandbox: &SandboxRow,
        key: &SessionKey,
        step: Transition,
    ) -> ApiResult<()> {
        match self.store.transition_session(&sandbox.tenant, key, step, now_ms()).await {
            Ok(_) | Err(StoreError::Conflict(Conflict::Stale)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// An error as the store remembers it.
pub(super) fn failure(error: &ApiError) -> Failure {
    Failure { code: error.code.as_str().to_owned(), message: error.message.clone(), since: now_ms() }
}
