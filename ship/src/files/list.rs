//! Listing directories a page at a time, in an order that a cursor can name.
//!
//! Each page is one walk that keeps only the smallest entries after the cursor, so that a directory of any size
//! costs one page of memory. Only what may be shown is asked about (`stat`); a subtree that cannot hold anything
//! for the page is not entered. A walk is done in slices: however long it takes, other operations go on.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bay_ship_api::http::{ListDirRequest, ListDirResponse};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use super::entry::entry;
use super::own::is_passing_name;
use super::pool::SLICE;
use super::resolve::{self, Parents};
use super::{Files, RelPath, is_dir};
use crate::agent::error::{Code, Failure};

const DEFAULT_LIMIT: u32 = 1000;
const MAX_LIMIT: u32 = 1000;
/// Directories one walk holds open. What is deeper is not entered, and the listing says that it is incomplete.
const MAX_DEPTH: usize = 64;
/// Time for one page, its waits for a thread included: user code can make trees without end.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Bytes of paths in one page, about: a thousand of the longest would make an answer of tens of megabytes. A page ends
/// there, and its cursor leads on.
const MAX_BYTES: usize = 2 << 20;
/// Entries between two looks at the clock.
const CLOCK: u32 = 256;

/// Order of a listing: directories first, then by path, byte by byte.
type Key = (bool, Vec<u8>);

/// A walk under way.
pub(crate) struct Walk {
    hidden: bool,
    recursive: bool,
    after: Option<Key>,
    limit: usize,
    /// The smallest keys after `after`: what a page holds, and one more where there is one.
    kept: BTreeMap<Key, Stat>,
    /// Bytes of their paths.
    bytes: usize,
    open: Vec<Level>,
    until: Instant,
    incomplete: bool,
}

/// A directory that is being read.
struct Level {
    entries: Dir,
    /// Its path, with a slash at its end; empty for the workspace.
    path: Vec<u8>,
}

impl Files {
    /// `POST /fs/list_dir`, to be carried on with [`Walk::slice`].
    pub(crate) fn list_dir(&self, request: &ListDirRequest) -> Result<Walk, Failure> {
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Failure::field("limit", format!("must be from 1 to {MAX_LIMIT}")));
        }
        let after = request.cursor.as_deref().map(read_cursor).transpose()?;
        let path = RelPath::parse("path", &request.path)?;
        let place = resolve::resolve(&self.root, &path, Parents::MustExist)?;
        let stat =
            place.stat()?.ok_or_else(|| Failure::new(Code::FileNotFound, "there is no such directory"))?;
        if !is_dir(&stat) {
            return Err(Failure::new(Code::NotADirectory, "this is not a directory"));
        }
        let top = place.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Walk {
            open: vec![Level {
                entries: Dir::new(top)?,
                path: if path.is_root() { Vec::new() } else { (path.text() + "/").into_bytes() },
            }],
            hidden: request.hidden,
            recursive: request.recursive,
            after,
            limit: limit as usize,
            kept: BTreeMap::new(),
            bytes: 0,
            until: Instant::now() + MAX_TIME,
            incomplete: false,
        })
    }
}

impl Walk {
    /// Goes on for a moment; the page once it is complete.
    pub(crate) fn slice(&mut self) -> Result<Option<ListDirResponse>, Failure> {
        let end = Instant::now() + SLICE;
        let mut count: u32 = 0;
        while let Some(level) = self.open.last_mut() {
            count += 1;
            if count.is_multiple_of(CLOCK) {
                let now = Instant::now();
                if now > self.until {
                    self.incomplete = true;
                    break;
                }
                if now > end {
                    return Ok(None);
                }
            }
            match level.entries.read() {
                None => drop(self.open.pop()),
                Some(entry) => self.entry(&entry?)?,
            }
        }
        Ok(Some(self.page()))
    }

    fn entry(&mut self, entry: &rustix::fs::DirEntry) -> Result<(), Failure> {
        let name = entry.file_name();
        let raw = name.to_bytes();
        let skipped = matches!(raw, b"." | b"..") || is_passing_name(raw);
        if skipped || (!self.hidden && raw.starts_with(b".")) {
            return Ok(());
        }
        let Some(level) = self.open.last() else { return Ok(()) };
        let path = [&level.path, raw].concat();
        let known = match entry.file_type() {
            FileType::Unknown => None,
            known => Some(known == FileType::Directory),
        };
        let wanted = known.is_none_or(|directory| self.wants(&(!directory, &path)));
        let mut directory = known == Some(true);
        if wanted {
            let stat = match statat(level.entries.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            directory = is_dir(&stat);
            self.keep((!directory, path.clone()), stat);
        }
        let inner = [&path[..], b"/"].concat();
        if self.recursive && directory && self.may_hold(&inner) {
            self.enter(name.to_owned(), inner)?;
        }
        Ok(())
    }

    fn enter(&mut self, name: CString, path: Vec<u8>) -> Result<(), Failure> {
        if self.open.len() >= MAX_DEPTH {
            self.incomplete = true;
            return Ok(());
        }
        let Some(level) = self.open.last() else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(level.entries.fd()?, &name, flags, Mode::empty()) {
            Ok(inner) => self.open.push(Level { entries: Dir::new(inner)?, path }),
            // Gone, exchanged, or closed to the user: it is listed, and what is in it is not.
            Err(Errno::NOENT | Errno::ACCESS | Errno::LOOP | Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether a subtree, given as its path with a slash, may hold something for this page.
    fn may_hold(&self, inner: &[u8]) -> bool {
        // The first path after all that start with `inner`: `0` follows `/`.
        let mut past = inner.to_vec();
        past.pop();
        past.push(b'/' + 1);
        [false, true].into_iter().any(|file| {
            let reached = self.after.as_ref().is_none_or(|after| (file, &past) > (after.0, &after.1));
            reached && (!self.full() || self.last().is_none_or(|last| (file, inner) < (last.0, &last.1[..])))
        })
    }

    /// Whether the last one kept is more than the page holds.
    fn full(&self) -> bool {
        self.kept.len() > self.limit || (self.bytes > MAX_BYTES && self.kept.len() > 1)
    }

    fn last(&self) -> Option<&Key> {
        self.kept.last_key_value().map(|(key, _)| key)
    }

    fn wants(&self, key: &(bool, &Vec<u8>)) -> bool {
        self.after.as_ref().is_none_or(|after| *key > (after.0, &after.1))
            && (!self.full() || self.last().is_none_or(|last| *key < (last.0, &last.1)))
    }

    fn keep(&mut self, key: Key, stat: Stat) {
        if self.wants(&(key.0, &key.1)) {
            self.bytes += key.1.len();
            self.kept.insert(key, stat);
            // Only the first that is too much is kept.
            while let Some((last, _)) = self.kept.last_key_value() {
                let before = self.bytes - last.1.len();
                if self.kept.len() <= self.limit + 1 && (before <= MAX_BYTES || self.kept.len() <= 2) {
                    break;
                }
                self.bytes = before;
                self.kept.pop_last();
            }
        }
    }

    /// The page, from what was kept.
    fn page(&mut self) -> ListDirResponse {
        let full = self.full();
        let kept = std::mem::take(&mut self.kept);
        let count = kept.len() - usize::from(full);
        // After a walk that was cut short a cursor would silently skip what the walk never came to.
        let more = full && self.open.is_empty();
        let next_cursor = more.then(|| kept.keys().nth(count - 1).map(write_cursor)).flatten();
        // A name that is not UTF-8 cannot be named in JSON: it is shown with its odd bytes replaced.
        let shown = kept.into_iter().take(count);
        let entries = shown
            .map(|((_, path), stat)| entry(String::from_utf8_lossy(&path).into_owned(), &stat))
            .collect();
        ListDirResponse { entries, truncated: more || self.incomplete, next_cursor }
    }
}

/// A cursor is the key of the last entry shown: stable when entries come and go.
fn write_cursor(key: &Key) -> String {
    let (file, path) = key;
    URL_SAFE_NO_PAD.encode([if *file { b"f" } else { b"d" }, &path[..]].concat())
}

fn read_cursor(cursor: &str) -> Result<Key, Failure> {
    let bad = || Failure::field("cursor", "not a cursor of this listing");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
    match bytes.split_first() {
        Some((b'f', path)) => Ok((true, path.to_vec())),
        Some((b'd', path)) => Ok((false, path.to_vec())),
        _ => Err(bad()),
    }
}
