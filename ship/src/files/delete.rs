//! Deleting files, and directories with all that is in them.
//!
//! In slices, with few descriptors at any depth, and within a time: user code may nest directories without end and
//! make files as fast as they are removed.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bay_ship_api::http::DeleteFileRequest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::own::deleting_name;
use super::pool::SLICE;
use super::resolve::{self, Parents, Place};
use super::{Files, RelPath, is_dir, kind};
use crate::agent::error::{Code, Failure};

/// Directories open at once. What is nested deeper is moved up, so that no depth needs more.
const MAX_OPEN: usize = 32;
/// Time for one call, its waits for a thread included.
const MAX_TIME: Duration = Duration::from_secs(120);
/// Entries between two looks at the clock.
const CLOCK: u32 = 64;

/// A deletion under way.
pub(crate) enum Removal {
    Done,
    Directory(Tree),
}

/// A directory that is being emptied.
pub(crate) struct Tree {
    place: Place,
    /// The directory to be deleted, where what is too deep is moved to.
    top: OwnedFd,
    open: Vec<Level>,
    until: Instant,
}

struct Level {
    entries: Dir,
    name: CString,
}

impl Files {
    /// `POST /fs/delete_file`, to be carried on with [`Removal::slice`]. A symbolic link is removed itself, never
    /// what it points to.
    pub(crate) fn delete_file(&self, request: &DeleteFileRequest) -> Result<Removal, Failure> {
        let path = RelPath::parse("path", &request.path)?;
        if path.is_root() {
            return Err(Failure::field("path", "the workspace itself cannot be deleted"));
        }
        let place = resolve::resolve_link(&self.root, &path, Parents::MustExist)?;
        if place.is_root() {
            return Err(Failure::field("path", "this leads to the workspace itself"));
        }
        let stat = place.stat()?.ok_or_else(|| Failure::new(Code::FileNotFound, "there is no such file"))?;
        if !is_dir(&stat) {
            // Not between another call's check of `if_match` and its change.
            let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            unlinkat(place.directory(), place.name(), AtFlags::empty())?;
            return Ok(Removal::Done);
        }
        let top = open_dir(place.directory(), place.name())?;
        Ok(Removal::Directory(Tree { place, top, open: Vec::new(), until: Instant::now() + MAX_TIME }))
    }
}

/// Empties and removes a directory of Ship's own, `name` in `parent`, that is open as `top`. Blocks.
pub(super) fn remove_own(parent: OwnedFd, name: &str, top: OwnedFd) -> Result<(), Failure> {
    let mut removal = own_tree(parent, name, top);
    while removal.slice()?.is_none() {}
    Ok(())
}

/// As [`remove_own`], to be carried on with [`Removal::slice`].
pub(super) fn own_tree(parent: OwnedFd, name: &str, top: OwnedFd) -> Removal {
    let until = Instant::now() + MAX_TIME;
    Removal::Directory(Tree { place: Place::at(parent, name), top, open: Vec::new(), until })
}

impl Removal {
    /// Goes on for a moment; answers once all is gone.
    pub(crate) fn slice(&mut self) -> Result<Option<()>, Failure> {
        match self {
            Self::Done => Ok(Some(())),
            Self::Directory(tree) => tree.slice(),
        }
    }
}

impl Tree {
    fn slice(&mut self) -> Result<Option<()>, Failure> {
        let end = Instant::now() + SLICE;
        let mut count: u32 = 0;
        loop {
            count += 1;
            if count.is_multiple_of(CLOCK) {
                let now = Instant::now();
                if now > self.until {
                    let message = "it did not end in time: what is left can be deleted by another call";
                    return Err(Failure::new(Code::Conflict, message));
                }
                if now > end {
                    return Ok(None);
                }
            }
            let Some(level) = self.open.last_mut() else {
                match unlinkat(self.place.directory(), self.place.name(), AtFlags::REMOVEDIR) {
                    Ok(()) => return Ok(Some(())),
                    // A round is over and something is left: moved up, or made meanwhile. Another round.
                    Err(Errno::NOTEMPTY | Errno::EXIST) => {
                        self.still_there()?;
                        let entries = Dir::read_from(&self.top)?;
                        self.open.push(Level { entries, name: CString::default() });
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            match level.entries.read() {
                Some(entry) => self.entry(&entry?)?,
                None => self.leave()?,
            }
        }
    }

    /// Another directory in this one's place would never become empty by emptying this one.
    fn still_there(&self) -> Result<(), Failure> {
        let own = fstat(&self.top)?;
        match self.place.stat()? {
            Some(there) if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino) => Ok(()),
            _ => Err(Failure::new(Code::Conflict, "something exchanged the directory meanwhile")),
        }
    }

    /// Removes one thing, or goes into it.
    fn entry(&mut self, entry: &rustix::fs::DirEntry) -> Result<(), Failure> {
        let (depth, Some(level)) = (self.open.len(), self.open.last()) else { return Ok(()) };
        let (directory, name) = (level.entries.fd()?, entry.file_name());
        if matches!(name.to_bytes(), b"." | b"..") {
            return Ok(());
        }
        let file_type = match entry.file_type() {
            FileType::Unknown => match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => kind(&stat),
                Err(error) => return passes(Err(error)),
            },
            known => known,
        };
        if file_type != FileType::Directory {
            return passes(unlinkat(directory, name, AtFlags::empty()));
        }
        // Most directories of a tree that was emptied before are empty.
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            other => return passes(other),
        }
        if depth >= MAX_OPEN {
            return passes(renameat(directory, name, self.top.as_fd(), deleting_name()?));
        }
        match open_dir(directory, name) {
            Ok(inner) => {
                let name = name.to_owned();
                self.open.push(Level { entries: Dir::new(inner)?, name });
                Ok(())
            }
            Err(error) => passes(Err(error)),
        }
    }

    /// A directory was read to its end: it goes, unless something came into it meanwhile.
    fn leave(&mut self) -> Result<(), Failure> {
        let Some(done) = self.open.pop() else { return Ok(()) };
        match self.open.last() {
            Some(parent) => passes(unlinkat(parent.entries.fd()?, &done.name, AtFlags::REMOVEDIR)),
            None => Ok(()),
        }
    }
}

pub(super) fn open_dir(at: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// User code may be deleting, exchanging or refilling the same things: what that leaves is for the next round.
fn passes(result: Result<(), Errno>) -> Result<(), Failure> {
    match result {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NOTEMPTY | Errno::EXIST)
        | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
