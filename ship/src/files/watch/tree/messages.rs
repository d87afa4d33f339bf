//! Follows what the kernel says of the watched directories, message by message.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Instant;

use bay_ship_api::http::WatchEvent;
use rustix::fs::FileType;
use rustix::fs::inotify::{self, ReadFlags, Reader};
use rustix::io::Errno;

use super::{Half, Inner, MAX_EVENTS, MAX_SCANNED_AT_ONCE, Message, Node, Watcher, look, push};
use crate::agent::error::Failure;
use crate::files::own::{is_nameless, is_passing_name};
use crate::files::pool::SLICE;
use crate::files::watch::{Digest, Happened, word};

/// Read from the kernel at once: about 128 messages, between which there is no look at the clock.
const BUFFER: usize = 4 << 10;

impl Watcher {
    /// Reads what the kernel has to say, for a [`SLICE`] at most: not every message becomes an event, and user code
    /// can write them as fast as they are read. `flush`: a move's second half has been waited for long enough. An
    /// error is the end of the watch.
    pub(crate) fn digest(&mut self, flush: bool) -> Result<Digest, Failure> {
        self.digest_until(Instant::now() + SLICE, flush)
    }

    /// As [`Self::digest`], until a moment after which no more is read.
    pub(in crate::files::watch) fn digest_until(
        &mut self,
        until: Instant,
        flush: bool,
    ) -> Result<Digest, Failure> {
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
}
