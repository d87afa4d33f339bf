//! Starting a container, and handing init its configuration.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::init::{InitConfig, Isolation};
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::AttachContainerOptionsBuilder;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::engine::{Contact, Failure};
use super::{Backend, Inner, Reach, network};
use crate::driver::{ContainerRef, ContainerSpec, DriverError};

/// How long init may take to read its configuration.
const CONFIG_LIMIT: Duration = Duration::from_secs(10);
/// How much of the log goes into an error.
const LOG_TAIL: usize = 2000;

impl Inner {
    pub(super) async fn start(
        &self,
        container: &ContainerRef,
        spec: &ContainerSpec,
        init: &InitConfig,
    ) -> Result<ContainerRef, DriverError> {
        let contact = self.engine.contact().await?;
        let mut backend =
            Backend::of(container).ok_or_else(|| DriverError::Missing(container.name.clone()))?;
        let message = serde_json::to_vec(&self.completed(&contact, &backend, spec, init));
        let message = message.map_err(|error| DriverError::Io {
            what: "write the configuration".to_owned(),
            source: error.into(),
        })?;
        self.launch(&contact, container, spec, &backend.id, &message).await?;
        if !matches!(backend.reach, Reach::Socket) {
            let found = self.engine.call(contact.docker.inspect_container(&backend.id, None)).await;
            let found =
                found.map_err(|failure| failure.into_unwell(&format!("look at {}", container.name)))?;
            backend.reach = reach(&backend, &found);
        }
        Ok(ContainerRef { name: container.name.clone(), backend: backend.to_value()? })
    }

    /// The configuration with what only the driver knows.
    fn completed(
        &self,
        contact: &Contact,
        backend: &Backend,
        spec: &ContainerSpec,
        init: &InitConfig,
    ) -> InitConfig {
        let mut init = init.clone();
        init.isolation = Isolation::TwoUid;
        init.network = network::setup(spec.network, backend.network.as_ref(), &contact.facts.own_addresses);
        init.limits.enforce = !contact.facts.enforces;
        init
    }

    async fn launch(
        &self,
        contact: &Arc<Contact>,
        container: &ContainerRef,
        spec: &ContainerSpec,
        id: &str,
        message: &[u8],
    ) -> Result<(), DriverError> {
        let mut input = match self.attach_and_start(contact, id).await {
            Err(failure) if failure.says("/.bay") => {
                // Somebody removed the runtime's volume, and the daemon made an empty one in its place.
                self.ship_volume_again(contact, spec.image.as_deref().unwrap_or_default()).await?;
                self.attach_and_start(contact, id).await
            }
            started => started,
        }
        .map_err(|failure| not_started(failure, container))?;
        let hand_over = async {
            input.write_all(message).await?;
            // The end of the configuration.
            input.shutdown().await
        };
        let reason = match tokio::time::timeout(CONFIG_LIMIT, hand_over).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("it did not take its configuration: {error}"),
            Err(_) => format!("it did not read its configuration within {CONFIG_LIMIT:?}"),
        };
        let log = self.logs(container, LOG_TAIL).await.unwrap_or_default();
        let reason = format!("{reason}; its log: {}", String::from_utf8_lossy(&log).trim());
        Err(DriverError::Start { name: container.name.clone(), reason })
    }

    /// Its stdin, attached before it starts: init reads what is there first.
    async fn attach_and_start(
        &self,
        contact: &Contact,
        id: &str,
    ) -> Result<Pin<Box<dyn AsyncWrite + Send>>, Failure> {
        let options = AttachContainerOptionsBuilder::new().stream(true).stdin(true).build();
        let attached = self.engine.call(contact.docker.attach_container(id, Some(options))).await?;
        self.engine.call(contact.docker.start_container(id, None)).await?;
        Ok(attached.input)
    }
}

fn not_started(failure: Failure, container: &ContainerRef) -> DriverError {
    match failure {
        Failure::Refused { code: 404, ref message } if message.contains("No such container") => {
            DriverError::Missing(container.name.clone())
        }
        Failure::Refused { message, .. } => {
            DriverError::Start { name: container.name.clone(), reason: message }
        }
        other => other.into_error(&format!("start {}", container.name)),
    }
}

/// Where a running container is reached: the daemon chose port and address.
pub(super) fn reach(backend: &Backend, found: &ContainerInspectResponse) -> Reach {
    let settings = found.network_settings.as_ref();
    match backend.reach {
        Reach::Socket => Reach::Socket,
        Reach::Port { .. } => {
            let bindings =
                settings.and_then(|s| s.ports.as_ref()).into_iter().flat_map(|ports| ports.values());
            let bound =
                bindings.flatten().flatten().find_map(|binding| binding.host_port.as_ref()?.parse().ok());
            Reach::Port { port: bound }
        }
        Reach::Address { .. } => {
            let name = backend.network.as_ref().map(|attached| attached.name.as_str());
            let endpoint =
                settings.and_then(|s| s.networks.as_ref()).zip(name).and_then(|(all, n)| all.get(n));
            let address = endpoint.and_then(|e| e.ip_address.as_ref()?.parse::<IpAddr>().ok());
            Reach::Address { address }
        }
    }
}
