//! The watched directories as a tree that follows what happens in them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bay_ship_api::http::WatchEvent;
use rustix::fs::inotify::{self, ReadFlags, Reader, WatchFlags};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use super::{Counted, Digest, Happened, MAX_DIRECTORIES, Watches, add, word};
use crate::agent::error::{Code, Failure};
use crate::files::own::{is_nameless, is_passing_name};
use crate::files::pool::SLICE;
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
/// Read from the kernel at once: about 128 messages, between which there is no look at the clock.
const BUFFER: usize = 4 << 10;

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

    /// Reads what the kernel has to say, for a [`SLICE`] at most: not every message becomes an event, and user code
    /// can write them as fast as they are read. `flush`: a move's second half has been waited for long enough. An
    /// error is the end of the watch.
    pub(crate) fn digest(&mut self, flush: bool) -> Result<Digest, Failure> {
        self.digest_until(Instant::now() + SLICE, flush)
    }

    /// As [`Self::digest`], until a moment after which no more is read.
    pub(super) fn digest_until(&mut self, until: Instant, flush: bool) -> Result<Digest, Failure> {
        self.may_scan = MAX_SCANNED_AT_ONCE;
        let mut digest = Digest::default();
        let queue = Arc::clone(&self.queue);
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&*queue, &mut buffer);
        let mut begun = false;
        while digest.end.is_none() && !digest.stale {
            // One piece is read in any case, or a busy machine might never come to it.
            if begun
                && reader.is_buffer_empty()
                && (digest.events.len() >= MAX_EVENTS || Instant::now() >= until)
            {
                digest.more = true;
                break;
            }
            let message = match reader.next() {
                Ok(event) => Message {
                    wd: event.wd(),
                    flags: event.events(),
                    cookie: event.cookie(),
                    name: event.file_name().map(|name| name.to_bytes().into()).unwrap_or_default(),
                },
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            begun = true;
            self.message(&message, &mut digest)?;
        }
        if flush && digest.end.is_none() {
            self.settle(&mut digest);
        }
        digest.half = self.half.is_some();
        Ok(digest)
    }

    fn message(&mut self, message: &Message, digest: &mut Digest) -> Result<(), Failure> {
        if message.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            digest.overflow = true;
            digest.stale = true;
            return Ok(());
        }
        let second = message.flags.contains(ReadFlags::MOVED_TO)
            && self.half.as_ref().is_some_and(|half| half.cookie == message.cookie);
        if !second {
            self.settle(digest);
        }
        if self.parent.as_ref().is_some_and(|(wd, _)| *wd == message.wd) {
            self.beside_root(message, digest);
            return Ok(());
        }
        let gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if message.flags.intersects(gone) {
            if self.is_root(message.wd) {
                self.end(digest);
            } else {
                self.forget(message.wd);
            }
            return Ok(());
        }
        if self.nodes.contains_key(&message.wd) {
            self.within(message, digest)?;
        }
        Ok(())
    }

    /// Something in the directory that the root is in.
    fn beside_root(&self, message: &Message, digest: &mut Digest) {
        if self.parent.as_ref().is_none_or(|(_, name)| **name != *message.name) {
            return;
        }
        if message.flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            return self.end(digest);
        }
        // A file is watched from here: it may be written, or replaced by an atomic write.
        if self.root.is_none() && message.flags.intersects(ReadFlags::MODIFY | ReadFlags::MOVED_TO) {
            push(digest, Happened::Modified, self.base.clone(), self.root_kind, None);
        }
    }

    fn end(&self, digest: &mut Digest) {
        let path = if self.base.is_empty() { ".".to_owned() } else { self.base.clone() };
        digest.end = Some(WatchEvent { path, kind: word(self.root_kind).to_owned(), from: None });
    }

    /// Something in a watched directory.
    fn within(&mut self, message: &Message, digest: &mut Digest) -> Result<(), Failure> {
        let Message { wd, flags, cookie, name } = message;
        let directory = flags.contains(ReadFlags::ISDIR);
        if is_passing_name(name) {
            // What takes one of Ship's names is about to be deleted.
            if flags.contains(ReadFlags::MOVED_TO) {
                self.settle(digest);
            }
            return Ok(());
        }
        let unknown = if directory { FileType::Directory } else { FileType::RegularFile };
        if flags.contains(ReadFlags::MODIFY) {
            let hash = self.hash(name);
            let known = self.nodes.get(wd).and_then(|node| node.known.get(&hash).copied());
            if known.is_none() && is_nameless(name) {
                return Ok(());
            }
            self.tell(digest, Happened::Modified, *wd, name, known.unwrap_or(unknown));
        } else if flags.contains(ReadFlags::DELETE) {
            let kind = self.unlearn(*wd, name).unwrap_or(unknown);
            self.tell(digest, Happened::Removed, *wd, name, kind);
            if directory {
                self.forget_at(&(*wd, name.clone()));
            }
        } else if flags.contains(ReadFlags::MOVED_FROM) {
            let kind = self.unlearn(*wd, name).unwrap_or(unknown);
            let from = (*wd, name.clone());
            self.half = self.path(*wd, name).map(|path| Half { cookie: *cookie, from, path, kind });
        } else if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.arrived(message, directory, digest)?;
        }
        Ok(())
    }

    /// Forgets the directory at a name that was deleted: somebody may have it open still, and its own end would come
    /// only after that. Where the watched one is another that took the name since, it is watched again with the
    /// message about that.
    fn forget_at(&mut self, place: &(i32, Box<[u8]>)) {
        let there = |node: &Node| node.above.as_ref() == Some(place);
        let Some(wd) = self.nodes.iter().find(|(_, node)| there(node)).map(|(wd, _)| *wd) else { return };
        self.forget(wd);
        // Gone already, perhaps.
        let _ = inotify::remove_watch(&*self.queue, wd);
    }

    /// A name that is new in its directory, or replaced.
    fn arrived(&mut self, message: &Message, directory: bool, digest: &mut Digest) -> Result<(), Failure> {
        let (wd, name) = (message.wd, &*message.name);
        if let Some(half) = self.half.take() {
            self.learn(wd, name, half.kind);
            let from = half.from.clone();
            if let Some(path) = self.path(wd, name) {
                push(digest, Happened::Moved, path, half.kind, Some(half.path));
            }
            return if directory { self.moved(wd, name, &from, digest) } else { Ok(()) };
        }
        let at = self.open(wd);
        let file_type = match (directory, &at) {
            (true, _) => FileType::Directory,
            (false, Ok(at)) => look(at, name),
            (false, Err(_)) => FileType::RegularFile,
        };
        let known = self.learn(wd, name, file_type);
        match known {
            None => self.tell(digest, Happened::Created, wd, name, file_type),
            Some(_) if message.flags.contains(ReadFlags::MOVED_TO) => {
                self.tell(digest, Happened::Modified, wd, name, file_type);
            }
            // A scan has told it already.
            Some(_) => {}
        }
        match at {
            // Watched first and looked at then: what was made in between is seen twice and told once.
            Ok(at) if directory && self.recursive => match self.descend(&at, wd, name)? {
                Some(Inner { wd, new: true }) => self.rescan(wd, digest),
                Some(Inner { new: false, .. }) | None => Ok(()),
            },
            Err(_) if directory && self.recursive => {
                self.missed(wd);
                Ok(())
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// A directory was moved within what is watched. It need not be watched itself: it may have been moved before the
    /// message of its making was read.
    fn moved(
        &mut self,
        wd: i32,
        name: &[u8],
        from: &(i32, Box<[u8]>),
        digest: &mut Digest,
    ) -> Result<(), Failure> {
        if !self.recursive {
            return Ok(());
        }
        let there = match self.open(wd) {
            Ok(at) => self.descend(&at, wd, name)?,
            Err(_) => {
                self.missed(wd);
                None
            }
        };
        match there {
            Some(Inner { wd, new: true }) => self.rescan(wd, digest)?,
            Some(Inner { new: false, .. }) => {}
            // Moved on or gone: the message about that will look for it here.
            None => {
                if let Some(node) = self.nodes.values_mut().find(|node| node.above.as_ref() == Some(from)) {
                    node.above = Some((wd, name.into()));
                }
            }
        }
        for unread in std::mem::take(&mut self.unread) {
            self.rescan(unread, digest)?;
        }
        Ok(())
    }

    /// Looks into a directory, for what was made there before it was watched.
    fn rescan(&mut self, wd: i32, digest: &mut Digest) -> Result<(), Failure> {
        let all = self.scan(wd, Some(digest))?;
        digest.overflow |= !all;
        digest.stale |= !all;
        Ok(())
    }

    /// A move whose second half has not come: it went out of what is watched.
    fn settle(&mut self, digest: &mut Digest) {
        let Some(half) = self.half.take() else { return };
        push(digest, Happened::Removed, half.path, half.kind, None);
        let moved = |node: &Node| node.above.as_ref() == Some(&half.from);
        let Some(top) = self.nodes.iter().find(|(_, node)| moved(node)).map(|(wd, _)| *wd) else { return };
        let beneath: Vec<i32> = self.nodes.keys().copied().filter(|wd| self.is_beneath(*wd, top)).collect();
        for wd in beneath {
            self.forget(wd);
            // Gone already, perhaps.
            let _ = inotify::remove_watch(&*self.queue, wd);
        }
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
