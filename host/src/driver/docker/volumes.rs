//! Lockers' volumes. What is stored of each is the daemon's own name for it.

use std::io;

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::RemoveVolumeOptionsBuilder;

use super::Inner;
use super::engine::Contact;
use super::names;
use crate::driver::DriverError;

impl Inner {
    pub(super) async fn volume_create(&self, id: &str) -> Result<String, DriverError> {
        let name = names::locker(names::checked(id)?);
        let contact = self.engine.contact().await?;
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(names::own(&self.instance)),
            ..VolumeCreateRequest::default()
        };
        let made = self.engine.call(contact.docker.create_volume(request)).await;
        made.map_err(|failure| failure.into_error(&format!("make volume {name}")))?;
        Ok(name)
    }

    pub(super) async fn volume_remove(&self, name: &str) -> Result<(), DriverError> {
        if !names::is_locker(name) {
            return Err(DriverError::Missing(name.to_owned()));
        }
        let contact = self.engine.contact().await?;
        self.remove_volume(&contact, name).await
    }

    /// Removes a volume that no container uses. Idempotent.
    pub(super) async fn remove_volume(&self, contact: &Contact, name: &str) -> Result<(), DriverError> {
        let options = RemoveVolumeOptionsBuilder::new().force(false).build();
        match self.engine.call(contact.docker.remove_volume(name, Some(options))).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is(404) => Ok(()),
            Err(failure) if failure.is(409) => Err(DriverError::Io {
                what: format!("remove volume {name}"),
                source: io::Error::new(io::ErrorKind::ResourceBusy, "a container still uses it"),
            }),
            Err(failure) => Err(failure.into_error(&format!("remove volume {name}"))),
        }
    }

    pub(super) async fn volume_usage(&self, name: &str) -> Result<Option<u64>, DriverError> {
        if !names::is_locker(name) {
            return Err(DriverError::Missing(name.to_owned()));
        }
        let contact = self.engine.contact().await?;
        match self.engine.call(contact.docker.inspect_volume(name)).await {
            Ok(_) => Ok(self.sizes.of(&self.engine.address, &contact, name).await),
            Err(failure) if failure.is(404) => Err(DriverError::Missing(name.to_owned())),
            Err(failure) => Err(failure.into_error(&format!("measure volume {name}"))),
        }
    }
}
