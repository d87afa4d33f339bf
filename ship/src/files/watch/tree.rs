//! The watched directories as a tree that follows what happens in them.

mod messages;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bay_ship_api::http::WatchEvent;
use rustix::fs::inotify::{ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use super::{Counted, Digest, Happened, MAX_DIRECTORIES, Watches, add, word};
use crate::agent::error::{Code, Failure};
use crate::files::own::is_passing_name;
use crate::files::{RelPath, kind};

/// Names remembered for one stream, some tens of bytes each. Past it a file that replaces another may be called new.
const MAX_KNOWN: usize = 65_536;
/// Entries looked at when a watch begins: a directory of a billion files must not keep a thread.
const MAX_SCANNED: usize = 200_000;
/// Entries looked at by one digest, in whatever came to be or was moved in: user code can move large directories in
/// and out all the time. Past it the watches are set anew.
const MAX_SCANNED_AT_ONCE: usize = 20_000;
/// The longest path in an event, in bytes, as for the paths of calls: deeper ones would make megabytes of few
/// messages. What is longer is told as missed.
const MAX_PATH: usize = 4096;
/// Events of one digest, about.
const MAX_EVENTS: usize = 512;
/// Directories within each other.
const MAX_DEPTH: usize = 256;

const WATCHED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO);

const DIRECTORY: OFlags = OFlags::from_bits_retain(
    OFlags::PATH.bits() | OFlags::DIRECTORY.bits() | OFlags::NOFOLLOW.bits() | OFlags::CLOEXEC.bits(),
);

/// A watched directory.
struct Node {
    /// The watch of the directory it is in, and its name there; none for the root.
    above: Option<(i32, Box<[u8]>)>,
    /// What is in it, by the names' hashes.
    known: HashMap<u64, FileType>,
    /// Device and inode: another directory may have its name by now.
    identity: (u64, u64),
    _counted: Counted,
}

/// What [`Watcher::descend`] found.
struct Inner {
    wd: i32,
    /// It was not watched before, and is to be looked into.
    new: bool,
}

/// The first half of a move.
struct Half {
    cookie: u32,
    from: (i32, Box<[u8]>),
    path: String,
    kind: FileType,
}

/// One message of the kernel's.
struct Message {
    wd: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Box<[u8]>,
}

/// A stream's watches. Its methods block.
pub(crate) struct Watcher {
    queue: Arc<OwnedFd>,
    /// The watched path for events: empty for the workspace.
    base: String,
    recursive: bool,
    all: Arc<Watches>,
    /// The watch of the directory that the root is in, and the root's name there.
    parent: Option<(i32, Box<[u8]>)>,
    /// The root's watch and descriptor; none where the root is no directory.
    root: Option<(i32, OwnedFd)>,
    root_kind: FileType,
    nodes: HashMap<i32, Node>,
    /// Names remembered in all of them.
    known: usize,
    hasher: RandomState,
    half: Option<Half>,
    /// Watched directories that could not be looked into, because they or what they are in were moved meanwhile: the
    /// message about that is still to come. At most as many as `nodes`.
    unread: HashSet<i32>,
    /// Entries that may still be looked at.
    may_scan: usize,
}

impl Watcher {
    pub(super) fn new(queue: OwnedFd, path: &RelPath, recursive: bool, all: &Arc<Watches>) -> Self {
        Self {
            queue: Arc::new(queue),
            base: if path.is_root() { String::new() } else { path.text() },
            recursive,
            all: Arc::clone(all),
            parent: None,
            root: None,
            root_kind: FileType::Unknown,
            nodes: HashMap::new(),
            known: 0,
            hasher: RandomState::new(),
            half: None,
            unread: HashSet::new(),
            may_scan: MAX_SCANNED,
        }
    }

    /// Becomes readable when there is something to digest.
    pub(crate) fn queue(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.queue)
    }

    /// Watches the root's name in the directory that it is in: the end of a directory that somebody still has open
    /// is told only there, and a file is watched from there altogether.
    pub(super) fn watch_parent(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &Path,
        only_its_end: bool,
    ) -> Result<(), Failure> {
        let end = WatchFlags::DELETE | WatchFlags::MOVED_FROM;
        let wd = add(&self.queue, directory, if only_its_end { end } else { WATCHED })?;
        self.parent = Some((wd, name.as_os_str().as_bytes().into()));
        Ok(())
    }

    pub(super) fn root_kind(&mut self, kind: FileType) {
        self.root_kind = kind;
    }

    /// Watches the root, and what is beneath it.
    pub(super) fn watch_root(&mut self, directory: OwnedFd) -> Result<(), Failure> {
        let counted = Counted::take(&self.all)?;
        let flags = WATCHED | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let wd = add(&self.queue, directory.as_fd(), flags)?;
        let identity = identity(&directory)?;
        self.nodes.insert(wd, Node { above: None, known: HashMap::new(), identity, _counted: counted });
        self.root = Some((wd, directory));
        match self.scan(wd, None) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::field("path", "there is too much in it to be watched")),
            Err(failure) => Err(failure),
        }
    }

    /// Learns what is in a directory that is watched already, and watches what is beneath it. With `digest` what was
    /// not known is told as created. False: there was too much.
    fn scan(&mut self, first: i32, mut digest: Option<&mut Digest>) -> Result<bool, Failure> {
        let mut waiting = vec![first];
        while let Some(wd) = waiting.pop() {
            let directory = match self.open(wd) {
                Ok(directory) => directory,
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::ACCESS) => {
                    self.missed(wd);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            // Opened anew: what was opened for its path only cannot be read.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let entries = match openat(&directory, c".", flags, Mode::empty()) {
                Ok(entries) => Dir::new(entries)?,
                Err(Errno::ACCESS | Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            for entry in entries {
                let entry = match entry {
                    Ok(entry) => entry,
                    // Deleted while it is read.
                    Err(Errno::NOENT) => break,
                    Err(error) => return Err(error.into()),
                };
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") || is_passing_name(name) {
                    continue;
                }
                let Some(left) = self.may_scan.checked_sub(1) else { return Ok(false) };
                self.may_scan = left;
                let file_type = match entry.file_type() {
                    FileType::Unknown => look(&directory, name),
                    known => known,
                };
                let new = self.learn(wd, name, file_type).is_none();
                if let Some(digest) = digest.as_deref_mut().filter(|_| new) {
                    if digest.events.len() >= 2 * MAX_EVENTS {
                        digest.overflow = true;
                    } else {
                        self.tell(digest, Happened::Created, wd, name, file_type);
                    }
                }
                if self.recursive && file_type == FileType::Directory {
                    waiting.extend(
                        self.descend(&directory, wd, name)?.filter(|inner| inner.new).map(|inner| inner.wd),
                    );
                }
            }
        }
        Ok(true)
    }

    /// A directory could not be opened where it should be: gone, or moved again.
    fn missed(&mut self, wd: i32) {
        if self.nodes.contains_key(&wd) {
            self.unread.insert(wd);
        }
    }

    /// Watches a directory within one that is watched, or learns that one is there that is watched already.
    fn descend(&mut self, at: &OwnedFd, above: i32, name: &[u8]) -> Result<Option<Inner>, Failure> {
        let inner = match openat(at, name, DIRECTORY, Mode::empty()) {
            Ok(inner) => inner,
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::ACCESS) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let wd = match add(&self.queue, inner.as_fd(), WATCHED) {
            Ok(wd) => wd,
            // Closed to the user: it is shown, and what is in it is not.
            Err(failure) if failure.code == Code::PermissionDenied => return Ok(None),
            Err(failure) => return Err(failure),
        };
        if self.is_root(wd) {
            return Ok(None);
        }
        let place = Some((above, name.into()));
        if let Some(node) = self.nodes.get_mut(&wd) {
            node.above = place;
            return Ok(Some(Inner { wd, new: false }));
        }
        if self.nodes.len() >= MAX_DIRECTORIES {
            let mut failure =
                Failure::field("recursive", format!("more than {MAX_DIRECTORIES} directories to watch"));
            failure.details["limit"] = MAX_DIRECTORIES.into();
            return Err(failure);
        }
        let counted = Counted::take(&self.all)?;
        let identity = identity(&inner)?;
        self.nodes.insert(wd, Node { above: place, known: HashMap::new(), identity, _counted: counted });
        Ok(Some(Inner { wd, new: true }))
    }

    fn is_root(&self, wd: i32) -> bool {
        self.root.as_ref().is_some_and(|(root, _)| *root == wd)
    }

    /// The names that lead from the root to a watched directory; none where it hangs loose.
    fn names(&self, wd: i32) -> Option<Vec<&[u8]>> {
        let (mut at, mut names) = (wd, Vec::new());
        while let Some((above, name)) = &self.nodes.get(&at)?.above {
            names.push(&**name);
            at = *above;
            if names.len() > MAX_DEPTH {
                return None;
            }
        }
        names.reverse();
        Some(names)
    }

    /// Opens a watched directory; `NOENT` where it is not where it should be.
    fn open(&self, wd: i32) -> Result<OwnedFd, Errno> {
        let (_, root) = self.root.as_ref().ok_or(Errno::NOENT)?;
        let mut at = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
        for name in self.names(wd).ok_or(Errno::NOENT)? {
            at = openat(&at, name, DIRECTORY, Mode::empty())?;
        }
        let same = identity(&at)? == self.nodes.get(&wd).ok_or(Errno::NOENT)?.identity;
        if same { Ok(at) } else { Err(Errno::NOENT) }
    }

    /// The path of something in a watched directory, for an event.
    fn path(&self, wd: i32, name: &[u8]) -> Option<String> {
        let mut names = self.names(wd)?;
        names.push(name);
        let inner = String::from_utf8_lossy(&names.join(&b'/')).into_owned();
        Some(if self.base.is_empty() { inner } else { format!("{}/{inner}", self.base) })
    }

    fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    /// Remembers a name; what it was before, where it was known.
    fn learn(&mut self, wd: i32, name: &[u8], kind: FileType) -> Option<FileType> {
        let hash = self.hash(name);
        let known = &mut self.nodes.get_mut(&wd)?.known;
        if self.known >= MAX_KNOWN && !known.contains_key(&hash) {
            return None;
        }
        let before = known.insert(hash, kind);
        self.known += usize::from(before.is_none());
        before
    }

    fn unlearn(&mut self, wd: i32, name: &[u8]) -> Option<FileType> {
        let hash = self.hash(name);
        let before = self.nodes.get_mut(&wd)?.known.remove(&hash)?;
        self.known -= 1;
        Some(before)
    }

    /// Forgets a directory; its watch is gone or about to go.
    fn forget(&mut self, wd: i32) {
        self.unread.remove(&wd);
        self.known -= self.nodes.remove(&wd).map_or(0, |node| node.known.len());
    }

    fn tell(&self, digest: &mut Digest, happened: Happened, wd: i32, name: &[u8], kind: FileType) {
        let Some(path) = self.path(wd, name) else { return };
        push(digest, happened, path, kind, None);
    }

    fn is_beneath(&self, wd: i32, top: i32) -> bool {
        let mut at = wd;
        for _ in 0..=MAX_DEPTH {
            if at == top {
                return true;
            }
            match self.nodes.get(&at).and_then(|node| node.above.as_ref()) {
                Some((above, _)) => at = *above,
                None => return false,
            }
        }
        false
    }
}

/// What a directory is known by.
fn identity(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// What is at a name; a file where that can no longer be said.
fn look(at: &OwnedFd, name: &[u8]) -> FileType {
    statat(at, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
        .map_or(FileType::RegularFile, |stat| kind(&stat))
}

/// Adds an event, unless it only repeats the last one's news of a written file.
fn push(digest: &mut Digest, happened: Happened, path: String, kind: FileType, from: Option<String>) {
    if path.len().max(from.as_ref().map_or(0, String::len)) > MAX_PATH {
        digest.overflow = true;
        return;
    }
    let event = (happened, WatchEvent { path, kind: word(kind).to_owned(), from });
    if happened != Happened::Modified || digest.events.last() != Some(&event) {
        digest.events.push(event);
    }
}
