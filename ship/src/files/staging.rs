//! A file while it is written: it has no name until it is whole.
//!
//! Where the file system allows (`O_TMPFILE`: ext4, xfs, btrfs, tmpfs, overlayfs), it has none at all: user code
//! cannot open or swap it, and a Ship that is killed leaves nothing. It is then linked under a passing name and
//! renamed over the target (or linked as the target, where it must be new). Elsewhere it has a passing name from
//! the start, which user code may exchange: so it is compared before the rename and again after it, and what is
//! not the file that was written is never reported as a success. A rename follows no link, and both names are
//! relative to one open directory beneath the root: an exchange publishes at most what user code could have put
//! there itself.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, fsync, futimens,
    linkat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::own::passing_name;
use super::resolve::Place;
use crate::agent::error::{Code, Failure};

/// A file on its way to `place`, gone again unless it arrives.
#[derive(Debug)]
pub(super) struct Staged {
    place: Place,
    file: File,
    /// A name it has meanwhile.
    passing: Option<String>,
}

impl Staged {
    /// An empty one in the directory of `place`.
    pub(super) fn create(place: Place) -> Result<Self, Failure> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match openat(place.directory(), ".", flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => Ok(Self { place, file: File::from(fd), passing: None }),
            // How file systems and old kernels say that they have no nameless files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::create_named(place),
            Err(error) => Err(error.into()),
        }
    }

    /// One that has a passing name from the start.
    pub(super) fn create_named(place: Place) -> Result<Self, Failure> {
        let name = passing_name()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(place.directory(), &name, flags, Mode::from_raw_mode(0o600))?;
        Ok(Self { place, file: File::from(fd), passing: Some(name) })
    }

    /// Where it is going.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// More content.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.file.write_all(bytes)?)
    }

    /// The file itself, for what concerns how it gets to the disk.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The content is whole: sets permissions and waits until it is on the disk.
    pub(super) fn settle(&self, mode: u32) -> Result<(), Failure> {
        fchmod(&self.file, Mode::from_raw_mode(mode))?;
        stamp(&self.file);
        Ok(fsync(&self.file)?)
    }

    /// Takes the target's name, whatever has it now.
    pub(super) fn replace(mut self) -> Result<Stat, Failure> {
        let passing = match &self.passing {
            Some(name) => name.clone(),
            None => {
                let name = passing_name()?;
                self.link(name.as_ref())?;
                self.passing = Some(name.clone());
                name
            }
        };
        if !self.is_at(passing.as_ref())? {
            return Err(exchanged());
        }
        renameat(self.place.directory(), &passing, self.place.directory(), self.place.name())?;
        self.passing = None;
        self.arrived()
    }

    /// Takes the target's name if nothing has it.
    pub(super) fn appear(self) -> Result<Stat, Failure> {
        match &self.passing {
            None => self.link(self.place.name())?,
            // What the passing name names is removed with this value.
            Some(name) => linkat(
                self.place.directory(),
                name,
                self.place.directory(),
                self.place.name(),
                AtFlags::empty(),
            )?,
        }
        self.arrived()
    }

    /// Gives the nameless file a name. The descriptor is named through `/proc`, which a process may always ask
    /// about itself.
    fn link(&self, name: &std::path::Path) -> Result<(), Errno> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, own, self.place.directory(), name, AtFlags::SYMLINK_FOLLOW)
    }

    /// The state after it got its name, which renewed the time of change that the etag is made of.
    fn arrived(&self) -> Result<Stat, Failure> {
        if self.is_at(self.place.name())? { Ok(fstat(self.file.as_fd())?) } else { Err(exchanged()) }
    }

    /// Whether a name in its directory is this very file.
    fn is_at(&self, name: &std::path::Path) -> Result<bool, Failure> {
        let own = fstat(&self.file)?;
        match statat(self.place.directory(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = &self.passing {
            let _ = unlinkat(self.place.directory(), name, AtFlags::empty());
        }
    }
}

/// Sets the time of modification to the nanosecond. The kernel's own may be as coarse as its tick (4 ms), in which
/// two writes would get one etag. A file of somebody else's keeps the kernel's.
pub(super) fn stamp(file: &File) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let modified = Timespec {
        tv_sec: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: now.subsec_nanos().into(),
    };
    let times =
        Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: modified };
    let _ = futimens(file, &times);
}

fn exchanged() -> Failure {
    Failure::new(Code::Conflict, "something in the sandbox exchanged the file while it was written")
}
