//! Ending containers and removing what was made for them. All of it idempotent: what is gone already is no error.

use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{KillContainerOptionsBuilder, WaitContainerOptionsBuilder};
use futures::StreamExt as _;

use super::create::Removed;
use super::engine::{Contact, Failure};
use super::{Inner, names};
use crate::driver::{ContainerRef, ContainerStatus, DriverError};

/// How long a killed container may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at a container that somebody else removes.
const PAUSE: Duration = Duration::from_millis(50);

impl Inner {
    pub(super) async fn stop(&self, container: &ContainerRef, grace: Duration) -> Result<(), DriverError> {
        let (ContainerStatus::Running, Some(id)) = self.look(container).await? else { return Ok(()) };
        let contact = self.engine.contact().await?;
        if !grace.is_zero()
            && self.signal(&contact, &id, "SIGTERM", container).await?
            && self.gone_within(&contact, &id, grace).await?
        {
            return Ok(());
        }
        // Wakes a paused one as well.
        if !self.signal(&contact, &id, "SIGKILL", container).await?
            || self.gone_within(&contact, &id, KILL_LIMIT).await?
        {
            return Ok(());
        }
        Err(DriverError::Timeout { what: format!("the end of {}", container.name), limit: KILL_LIMIT })
    }

    /// False when it had ended.
    async fn signal(
        &self,
        contact: &Contact,
        id: &str,
        signal: &str,
        container: &ContainerRef,
    ) -> Result<bool, DriverError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        match self.engine.call(contact.docker.kill_container(id, Some(options))).await {
            Ok(()) => Ok(true),
            Err(failure) if failure.is(404) || failure.is(409) => Ok(false),
            Err(failure) => Err(failure.into_error(&format!("stop {}", container.name))),
        }
    }

    async fn gone_within(&self, contact: &Contact, id: &str, limit: Duration) -> Result<bool, DriverError> {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut ended = Box::pin(contact.docker.wait_container(id, Some(options)));
        match tokio::time::timeout(limit, ended.next()).await {
            Err(_) => Ok(false),
            // An exit code other than zero comes as an error.
            Ok(Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) | None) => Ok(true),
            Ok(Some(Err(error))) => match Failure::of(error, limit) {
                failure if failure.is(404) => Ok(true),
                Failure::Slow(_) => Ok(false),
                failure => Err(failure.into_error("wait for the end of a container")),
            },
        }
    }

    pub(super) async fn destroy(&self, container: &ContainerRef) -> Result<(), DriverError> {
        let key = self.key(container)?;
        // One that is being made is waited for: nobody else would find it.
        let being_made = self.making().get(&container.name).cloned();
        if let Some(mut done) = being_made {
            let _ended = tokio::time::timeout(self.engine.limit, done.changed()).await;
        }
        let contact = self.engine.contact().await?;
        self.remove(&contact, &key, &container.name).await
    }

    /// Removes the container, then output, network and socket, whichever of them can be. A stranger's container of that
    /// name stays, and keeps nobody from removing the rest.
    pub(super) async fn remove(&self, contact: &Contact, key: &str, name: &str) -> Result<(), DriverError> {
        names::checked(name)?;
        if self.remove_container(contact, key, name).await? == Removed::Strangers {
            tracing::warn!(container = name, "a container that is not Bay's has this name: it is left alone");
        }
        let spool = names::spool(name);
        let (output, network) =
            tokio::join!(self.remove_volume(contact, &spool), self.networks_remove(contact, name));
        let socket = self.sockets.remove(name);
        output.and(network).and(socket)
    }

    pub(super) async fn until_gone(
        &self,
        contact: &Contact,
        key: &str,
        name: &str,
    ) -> Result<(), DriverError> {
        let deadline = tokio::time::Instant::now() + KILL_LIMIT;
        while tokio::time::Instant::now() < deadline {
            match self.engine.call(contact.docker.inspect_container(key, None)).await {
                Err(failure) if failure.is(404) => return Ok(()),
                Err(failure) => return Err(failure.into_error(&format!("remove {name}"))),
                Ok(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        Err(DriverError::Timeout { what: format!("the removal of {name}"), limit: KILL_LIMIT })
    }
}
