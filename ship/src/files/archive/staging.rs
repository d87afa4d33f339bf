//! The hidden directory that an archive is unpacked in.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::plan::Made;
use crate::agent::error::{Code, Failure};
use crate::files::delete;
use crate::files::own::passing_name;

/// What is unpacked, within the hidden directory.
pub(super) const TREE: &str = "tree";

/// How a directory is opened here.
pub(super) const DIRECTORY: OFlags = OFlags::from_bits_retain(
    OFlags::RDONLY.bits() | OFlags::DIRECTORY.bits() | OFlags::NOFOLLOW.bits() | OFlags::CLOEXEC.bits(),
);

/// The hidden directory, removed with all that is in it when dropped.
pub(super) struct Staging {
    parent: OwnedFd,
    name: String,
    directory: OwnedFd,
    tree: OwnedFd,
    made: Made,
}

impl Staging {
    /// Makes one in `parent`, the workspace itself: what a Ship that is killed leaves there is found by
    /// [`Files::sweep`](crate::files::Files::sweep).
    pub(super) fn create(parent: OwnedFd) -> Result<Self, Failure> {
        let name = passing_name()?;
        mkdirat(&parent, &name, Mode::from_raw_mode(0o700))?;
        let directory = openat(&parent, &name, DIRECTORY, Mode::empty()).map_err(lost)?;
        // Exchanged already for something of the user's: that must not be emptied at the end.
        for entry in Dir::read_from(&directory)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Err(exchanged());
            }
        }
        mkdirat(&directory, TREE, Mode::from_raw_mode(0o700))?;
        let tree = openat(&directory, TREE, DIRECTORY, Mode::empty()).map_err(lost)?;
        let made = identity(tree.as_fd())?;
        Ok(Self { parent, name, directory, tree, made })
    }

    /// A file on the same file system that has no name any more.
    pub(super) fn spool(&self) -> Result<File, Failure> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, "body", flags, Mode::from_raw_mode(0o600))?;
        unlinkat(&self.directory, "body", AtFlags::empty())?;
        Ok(File::from(file))
    }

    /// The directory that [`TREE`] is in.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// What is unpacked.
    pub(super) fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// What the directory [`TREE`] is known by.
    pub(super) fn made(&self) -> Made {
        self.made
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What user code holds on to or made unremovable is left: it is in its own workspace.
        if let (Ok(parent), Ok(directory)) = (self.parent.try_clone(), self.directory.try_clone()) {
            let _ = delete::remove_own(parent, &self.name, directory);
        }
    }
}

/// What a file is known by.
pub(super) fn identity(fd: BorrowedFd<'_>) -> Result<Made, Failure> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Checks that a name still stands for what was made.
pub(super) fn check_identity(at: BorrowedFd<'_>, name: &[u8], made: Option<Made>) -> Result<(), Failure> {
    let stat = statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(lost)?;
    if made == Some((stat.st_dev, stat.st_ino)) { Ok(()) } else { Err(exchanged()) }
}

/// Something in the staging directory is not what was put there.
pub(super) fn exchanged() -> Failure {
    Failure::new(Code::Conflict, "the archive was changed by somebody while it was unpacked")
}

/// As [`exchanged`], for what an open says when a name is gone, or has become another thing.
pub(super) fn lost(error: Errno) -> Failure {
    match error {
        Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::EXIST | Errno::ISDIR => exchanged(),
        other => other.into(),
    }
}
