//! Watching a directory, or all beneath it, with inotify.
//!
//! Watches are set on descriptors that the resolver gave (through `/proc/self/fd`, which a process may always use
//! for itself), so no path is walked twice; links are not followed. What is known of each directory's names tells a
//! new file from a replaced one, which inotify does not.

mod tree;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bay_ship_api::http::WatchEvent;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::resolve::{self, Parents};
use super::{Files, RelPath, is_dir, kind};
use crate::agent::error::{Code, Failure};

pub(crate) use tree::Watcher;

/// Directories watched for one stream: a recursive watch of a huge tree would use up what others need.
const MAX_DIRECTORIES: usize = 4096;
/// Directories watched for all streams: kernel memory, and the user's own limit where the ids are the same.
const MAX_ALL: usize = 16_384;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    Created,
    Modified,
    Removed,
    Moved,
}

impl Happened {
    /// The event's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Removed => "removed",
            Self::Moved => "moved",
        }
    }
}

/// What the kernel's messages came to.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    pub(crate) events: Vec<(Happened, WatchEvent)>,
    /// Something was missed.
    pub(crate) overflow: bool,
    /// So much was missed that the watches must be set anew.
    pub(crate) stale: bool,
    /// What was watched is gone: the last event of all.
    pub(crate) end: Option<WatchEvent>,
    /// There is more to read at once.
    pub(crate) more: bool,
    /// A move's second half may come in a moment.
    pub(crate) half: bool,
}

/// The count of all directories watched.
#[derive(Default)]
pub(crate) struct Watches(AtomicUsize);

/// One of them.
struct Counted(Arc<Watches>);

impl Counted {
    fn take(all: &Arc<Watches>) -> Result<Self, Failure> {
        let one = Self(Arc::clone(all));
        if all.0.fetch_add(1, Ordering::Relaxed) >= MAX_ALL {
            return Err(Failure::new(Code::Busy, "too many directories are being watched"));
        }
        Ok(one)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Files {
    /// Starts to watch what is at `path`.
    pub(crate) fn watch(&self, path: &str, recursive: bool, all: &Arc<Watches>) -> Result<Watcher, Failure> {
        let path = RelPath::parse("path", path)?;
        let place = resolve::resolve(&self.root, &path, Parents::MustExist)?;
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(limited)?;
        let mut watcher = Watcher::new(queue, &path, recursive, all);
        let first = place.stat()?.ok_or(Errno::NOENT)?;
        if !place.is_root() {
            watcher.watch_parent(place.directory(), place.name(), is_dir(&first))?;
        }
        // Looked at once more, so that an end before that watch is not missed.
        let stat = place.stat()?.ok_or(Errno::NOENT)?;
        if kind(&first) != kind(&stat) {
            return Err(Failure::new(Code::Conflict, "the path was exchanged meanwhile"));
        }
        watcher.root_kind(kind(&stat));
        if is_dir(&stat) {
            watcher.watch_root(place.open(OFlags::PATH | OFlags::DIRECTORY)?)?;
        }
        Ok(watcher)
    }
}

/// Sets a watch on an open directory, however it was opened.
fn add(queue: &OwnedFd, directory: BorrowedFd<'_>, flags: WatchFlags) -> Result<i32, Failure> {
    let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    inotify::add_watch(queue, path, flags | WatchFlags::ONLYDIR).map_err(limited)
}

/// The kernel's own bounds on watching come as strange errors.
fn limited(error: Errno) -> Failure {
    match error {
        Errno::NOSPC | Errno::MFILE | Errno::NFILE => {
            Failure::new(Code::Busy, "the kernel's limit on inotify watches or instances is reached")
        }
        other => other.into(),
    }
}

/// The word for it in an event.
fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        _ => "other",
    }
}

#[cfg(test)]
#[path = "../watch_tests.rs"]
mod tests;
