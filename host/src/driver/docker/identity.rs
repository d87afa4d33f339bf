//! Which daemon has this Bay's lockers. One that answers at the same address and is another has none of them: there
//! every container would be missing and every locker empty.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::models::SystemInfo;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::engine::{Address, Failure};
use crate::driver::DriverError;

/// Where it is noted, in the data directory.
const FILE: &str = "docker-daemon";
/// Renamed to that once it is whole.
const FILE_NEW: &str = "docker-daemon.new";
/// Longest note: an id and a path.
const MAX_NOTE: u64 = 8192;

/// What is noted of the daemon.
pub(super) struct Identity {
    data: OwnedFd,
    path: PathBuf,
}

impl Identity {
    /// Blocks.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.canonicalize()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let data = rustix::fs::openat(CWD, &path, flags, Mode::empty())?;
        Ok(Self { data, path: path.join(FILE) })
    }

    /// Notes the first daemon, and refuses all others from then on.
    pub(super) async fn check(
        &self,
        docker: &Docker,
        info: &SystemInfo,
        address: &Address,
    ) -> Result<(), DriverError> {
        let Some(now) = note(info) else { return Ok(()) };
        let noted = self.read().map_err(|error| self.unreadable(&error))?;
        if noted.as_ref() == Some(&now) {
            return Ok(());
        }
        // Some engines that speak the same language give another id each time, which says nothing.
        let again = docker.info().await.map_err(|error| {
            Failure::of(error, std::time::Duration::ZERO).into_unwell("ask which daemon it is")
        })?;
        if note(&again).as_ref() != Some(&now) {
            return Ok(());
        }
        if noted.is_none() {
            return self.write(&now).map_err(|error| self.unreadable(&error));
        }
        Err(DriverError::Unavailable {
            message: format!("the Docker daemon at {address} is not the one that has this Bay's lockers"),
            remedy: format!(
                "bring that one back (its data root, docker.host or DOCKER_HOST), or, to begin with empty lockers \
                 on the new one, remove {}",
                self.path.display()
            ),
        })
    }

    /// Nothing is known of any container then, which is no death either.
    fn unreadable(&self, error: &io::Error) -> DriverError {
        let path = self.path.display();
        DriverError::Unavailable {
            message: format!("cannot keep which Docker daemon has the lockers in {path}: {error}"),
            remedy: "let Bay read and write that file".to_owned(),
        }
    }

    fn read(&self) -> io::Result<Option<String>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.data, FILE, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut text = String::new();
        file.take(MAX_NOTE).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.data, FILE_NEW, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.data, FILE_NEW, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(fd);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        rustix::fs::renameat(&self.data, FILE_NEW, &self.data, FILE)?;
        Ok(())
    }
}

/// An id, and the data root: before version 24 daemons of one machine have the same id whatever their data root.
fn note(info: &SystemInfo) -> Option<String> {
    let id = info.id.as_deref().filter(|id| !id.is_empty())?;
    let note = format!("{id}\n{}\n", info.docker_root_dir.as_deref().unwrap_or_default());
    (note.len() as u64 <= MAX_NOTE).then_some(note)
}
