//! The runtime on a volume of its own: filled once a daemon, mounted read-only by every container.
//!
//! It is filled through a container that is made and never started, so that any image will do, one without a shell
//! too. A file that says so comes last: what a killed Bay left half filled is filled again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions};
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::engine::{Contact, Failure};
use super::{Inner, names};
use crate::driver::DriverError;

/// Where it is mounted.
pub(super) const AT: &str = "/.bay";
/// Comes last.
const COMPLETE: &str = "complete";
/// Whose a filling container is: not `bay.instance`, since it is no sandbox.
const FILLED_BY: &str = "bay.filled-by";
/// The digest of the runtime that a volume holds.
const RUNTIME: &str = "bay.runtime";
/// How long the removal of what an earlier Bay left may take.
const CLEAR_LIMIT: Duration = Duration::from_secs(40);
/// Between two looks at it.
const CLEAR_PAUSE: Duration = Duration::from_millis(200);
/// How many digits of the digest name it.
const DIGITS: usize = 32;

/// The runtime, and where it was brought.
pub(super) struct ShipVolume {
    binary: PathBuf,
    digest: String,
    name: String,
    /// The contact during which it was found complete: another may be another daemon.
    complete: tokio::sync::Mutex<std::sync::Weak<Contact>>,
}

impl ShipVolume {
    /// Reads the binary to name the volume after it. Blocks.
    pub(super) fn new(binary: PathBuf) -> std::io::Result<Self> {
        let digest = hex::encode(Sha256::digest(std::fs::read(&binary)?));
        let name = format!("bay-ship-{}", digest.get(..DIGITS).unwrap_or(&digest));
        Ok(Self { binary, digest, name, complete: tokio::sync::Mutex::default() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// A volume of a container; what the image has there is not copied into it.
pub(super) fn mount(volume: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..Mount::default()
    }
}

impl Inner {
    /// Sees to it that the volume is there and whole; looks once a contact. Any image will do.
    pub(super) async fn ship_volume(&self, contact: &Arc<Contact>, image: &str) -> Result<(), DriverError> {
        let mut complete = self.ship.complete.lock().await;
        if std::ptr::eq(complete.as_ptr(), Arc::as_ptr(contact)) {
            return Ok(());
        }
        self.fill(contact, image).await?;
        *complete = Arc::downgrade(contact);
        Ok(())
    }

    /// Looks again, and mends what is amiss: somebody removed the volume, and the daemon made an empty one.
    pub(super) async fn ship_volume_again(
        &self,
        contact: &Arc<Contact>,
        image: &str,
    ) -> Result<(), DriverError> {
        *self.ship.complete.lock().await = std::sync::Weak::new();
        self.ship_volume(contact, image).await
    }

    /// Several Bays may do so at once, each through a container of its own: what they bring is the same.
    async fn fill(&self, contact: &Contact, image: &str) -> Result<(), DriverError> {
        let error = |failure: Failure| failure.into_error("bring the runtime to the Docker daemon");
        let helper = format!("bayfill-{}-{}", self.instance, self.ship.name.trim_start_matches("bay-"));
        names::checked(&helper)?;
        let deadline = tokio::time::Instant::now() + CLEAR_LIMIT;
        let id = loop {
            match self.helper(contact, &helper, image).await {
                Ok(id) => break id,
                Err(failure) if failure.is(409) && tokio::time::Instant::now() < deadline => {
                    // Left by a Bay that was killed, and perhaps not gone at once.
                    self.clear(contact, &helper).await?;
                    tokio::time::sleep(CLEAR_PAUSE).await;
                }
                Err(failure) if failure.is(409) => {
                    return Err(DriverError::Timeout {
                        what: format!("the removal of {helper}"),
                        limit: CLEAR_LIMIT,
                    });
                }
                Err(failure) => return Err(error(failure)),
            }
        };
        let filled = self.fill_through(contact, &id).await;
        let removed = self.discard(contact, &id).await;
        filled?;
        removed.map_err(error)
    }

    async fn helper(&self, contact: &Contact, name: &str, image: &str) -> Result<String, Failure> {
        let mut volume = mount(&self.ship.name, AT, false);
        volume.volume_options = Some(MountVolumeOptions {
            labels: Some([(RUNTIME.to_owned(), self.ship.digest.clone())].into()),
            ..volume.volume_options.unwrap_or_default()
        });
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec!["/.bay/ship".to_owned()]),
            labels: Some([(FILLED_BY.to_owned(), self.instance.clone())].into()),
            network_disabled: Some(true),
            host_config: Some(HostConfig {
                mounts: Some(vec![volume]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        Ok(self.engine.call(contact.docker.create_container(Some(options), body)).await?.id)
    }

    /// Removes the container that has the name of our helper, if it is one.
    async fn clear(&self, contact: &Contact, helper: &str) -> Result<(), DriverError> {
        let error = |failure: Failure| failure.into_error(&format!("remove {helper}"));
        let found = match self.engine.call(contact.docker.inspect_container(helper, None)).await {
            Ok(found) => found,
            Err(failure) if failure.is(404) => return Ok(()),
            Err(failure) => return Err(error(failure)),
        };
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        match found.id {
            Some(id) if labels.get(FILLED_BY) == Some(&self.instance) => {
                self.discard(contact, &id).await.map_err(error)
            }
            _ => Err(DriverError::Unavailable {
                message: format!("a container which is not Bay's has the name {helper}"),
                remedy: "remove or rename it".to_owned(),
            }),
        }
    }

    async fn discard(&self, contact: &Contact, id: &str) -> Result<(), Failure> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.engine.call(contact.docker.remove_container(id, Some(options))).await {
            Err(failure) if !failure.is(404) && !failure.is(409) => Err(failure),
            _ => Ok(()),
        }
    }

    async fn fill_through(&self, contact: &Contact, helper: &str) -> Result<(), DriverError> {
        let error = |failure: Failure| failure.into_error("bring the runtime to the Docker daemon");
        let mark = format!("{AT}/{COMPLETE}");
        let options = ContainerArchiveInfoOptionsBuilder::new().path(&mark).build();
        match self.engine.call(contact.docker.get_container_archive_info(helper, Some(options))).await {
            Ok(_) => return Ok(()),
            Err(failure) if failure.is(404) => {}
            Err(failure) => return Err(error(failure)),
        }
        let read = tokio::fs::read(&self.ship.binary).await;
        let ship = read.map_err(|source| DriverError::Io { what: "read the runtime".to_owned(), source })?;
        let mut first = entry("spool/", 0o755, b"");
        first.extend(entry("ship", 0o555, &ship));
        for archive in [first, entry(COMPLETE, 0o444, b"")] {
            let options = UploadToContainerOptionsBuilder::new().path(AT).build();
            let body = bollard::body_full(Bytes::from(ended(archive)));
            self.engine
                .call(contact.docker.upload_to_container(helper, Some(options), body))
                .await
                .map_err(error)?;
        }
        tracing::info!(volume = %self.ship.name, "brought the runtime to the Docker daemon");
        Ok(())
    }
}

/// One file of a tar archive (ustar), owned by root; a name that ends in `/` is a directory.
fn entry(name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| {
        header.iter_mut().skip(at).zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    };
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", content.len()));
    put(136, "00000000000");
    // The checksum counts itself as blanks.
    put(148, "        ");
    put(156, if name.ends_with('/') { "5" } else { "0" });
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    header.iter_mut().skip(148).zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    let mut bytes = header.to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Two empty blocks end an archive.
fn ended(mut archive: Vec<u8>) -> Vec<u8> {
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_one_that_tar_reads() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a.tar");
        let mut bytes = entry("spool/", 0o755, b"");
        bytes.extend(entry("ship", 0o555, b"runtime"));
        std::fs::write(&archive, ended(bytes)).unwrap();
        let run =
            std::process::Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(dir.path()).status();
        assert!(run.unwrap().success());
        assert_eq!(std::fs::read(dir.path().join("ship")).unwrap(), b"runtime");
        assert!(dir.path().join("spool").is_dir());
    }
}
