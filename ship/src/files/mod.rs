//! `filesystem`: files beneath `/workspace`, on a small fixed pool of threads.
//!
//! Every thread of the agent touches files as the user (its file-system identity), so the kernel's own checks
//! hold; `resolve` keeps every path beneath the root whatever user code does to it meanwhile.

pub(crate) mod archive;
mod delete;
mod edit;
mod entry;
pub(crate) mod fuzz;
mod list;
mod own;
pub(crate) mod pack;
pub(crate) mod pool;
mod read;
mod resolve;
mod staging;
mod sweep;
mod tar;
mod tree;
pub(crate) mod upload;
pub(crate) mod watch;
mod write;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use bay_ship_api::WORKSPACE;
use rustix::fs::{Mode, OFlags, Stat};
use sha2::{Digest, Sha256};

use crate::agent::error::{Code, Failure};
use crate::python::hex;

pub(crate) use delete::Removal;
pub(crate) use list::Walk;
pub(crate) use read::Opened;
pub(crate) use resolve::RelPath;
pub(crate) use sweep::{LEFT_BEHIND, Sweep};

/// The workspace. Its methods block: call them on the [`pool`].
#[derive(Clone)]
pub(crate) struct Files {
    root: Arc<OwnedFd>,
    /// Held from a check to the change it allows, so that of two calls with one `if_match` only one wins.
    changes: Arc<Mutex<()>>,
}

impl Files {
    /// Opens the workspace.
    pub(crate) fn open() -> std::io::Result<Self> {
        Self::open_at(WORKSPACE)
    }

    fn open_at(root: &str) -> std::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        Ok(Self { root: Arc::new(root), changes: Arc::default() })
    }

    /// Checks that a path names a directory, for a command to start in.
    pub(crate) fn check_directory(&self, field: &str, path: &str) -> Result<(), Failure> {
        let path = RelPath::parse(field, path)?;
        let place = resolve::resolve(&self.root, &path, resolve::Parents::MustExist)?;
        match place.stat()? {
            Some(stat) if is_dir(&stat) => Ok(()),
            Some(_) => Err(Failure::new(Code::NotADirectory, format!("{field} is not a directory"))),
            None => Err(Failure::new(Code::FileNotFound, format!("{field} does not exist"))),
        }
    }
}

fn kind(stat: &Stat) -> rustix::fs::FileType {
    rustix::fs::FileType::from_raw_mode(stat.st_mode)
}

fn is_dir(stat: &Stat) -> bool {
    kind(stat) == rustix::fs::FileType::Directory
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Changes when the file's content does, without reading it: made of the inode, the size, and the times of change
/// and modification.
///
/// What Ship writes always gets another one, also twice within one tick of the kernel's clock: a time of its own to
/// the nanosecond (`staging::stamp`), and for a whole file another inode than the one before. What user code writes
/// in place gets another one from Linux 6.13 on (on ext4, xfs, btrfs and tmpfs a change after the times were looked
/// at gets a fine one). Before that, two changes by user code that keep the size, the first of them before the etag
/// was made, within one tick (1 to 10 ms), give one etag. User code may also set a time of modification, but not
/// the time of change.
fn etag(stat: &Stat) -> String {
    let mut hash = Sha256::new();
    for part in [
        stat.st_ino as i128,
        i128::from(stat.st_size),
        i128::from(stat.st_mtime),
        stat.st_mtime_nsec as i128,
        i128::from(stat.st_ctime),
        stat.st_ctime_nsec as i128,
    ] {
        hash.update(part.to_le_bytes());
    }
    hex(&hash.finalize()[..16])
}

/// What may not be opened for data: a FIFO would hang, a device could do anything.
fn not_regular(stat: &Stat) -> Failure {
    if is_dir(stat) {
        Failure::new(Code::IsADirectory, "this is a directory")
    } else {
        Failure::field("path", "this is not a regular file (a FIFO, a socket or a device)")
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "change_tests.rs"]
mod change_tests;
#[cfg(test)]
#[path = "list_tests.rs"]
mod list_tests;
