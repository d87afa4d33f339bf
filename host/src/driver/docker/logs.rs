//! What a container logged, and which containers there are.

use bollard::query_parameters::{ListContainersOptionsBuilder, LogsOptionsBuilder};
use futures::StreamExt as _;

use super::{Inner, names};
use crate::driver::{ContainerRef, DriverError};

/// Most lines that are read of a log to find its last bytes.
const LINES: &str = "1000";

impl Inner {
    pub(super) async fn logs(&self, container: &ContainerRef, max: usize) -> Result<Vec<u8>, DriverError> {
        let contact = self.engine.contact().await?;
        let key = self.key(container)?;
        let read = async {
            let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(LINES).build();
            let mut lines = Box::pin(contact.docker.logs(&key, Some(options)));
            let mut tail = Vec::new();
            while let Some(line) = lines.next().await {
                tail.extend(line?.into_bytes());
                // A line has a bound at the daemon's (16 KiB), so this has one too.
                let over = tail.len().saturating_sub(max);
                tail.drain(..over);
            }
            Ok(tail)
        };
        match self.engine.call(read).await {
            Ok(tail) => Ok(tail),
            Err(failure) if failure.is(404) => Err(DriverError::Missing(container.name.clone())),
            Err(failure) => Err(failure.into_error(&format!("read the log of {}", container.name))),
        }
    }

    /// Containers with our label and a name that Bay gives, and those of which a network alone is there, as a request
    /// that timed out leaves it. They are candidates: the store says what they are.
    pub(super) async fn list(&self) -> Result<Vec<ContainerRef>, DriverError> {
        let contact = self.engine.contact().await?;
        // In this order: a container that is being made at the first look is so at the second, or there at the third.
        let mut networked = self.networks_containers(&contact).await?;
        let making: Vec<String> = self.making().keys().cloned().collect();
        let filters = names::own_filter(&self.instance);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.engine.call(contact.docker.list_containers(Some(options))).await;
        let found = found.map_err(|failure| failure.into_error("list containers"))?;
        let name = |names: Vec<String>| {
            names.into_iter().find_map(|name| {
                let name = name.strip_prefix('/').unwrap_or(&name);
                (name.starts_with(names::PREFIX) && names::checked(name).is_ok()).then(|| name.to_owned())
            })
        };
        // By name alone: enough to remove one, and no stranger's answer gets into the store.
        let reference = |name| ContainerRef { name, backend: serde_json::Value::Null };
        let mut all: Vec<String> = found.into_iter().filter_map(|c| c.names.and_then(name)).collect();
        networked.retain(|name| !making.contains(name));
        all.extend(networked);
        all.sort();
        all.dedup();
        Ok(all.into_iter().map(reference).collect())
    }
}
