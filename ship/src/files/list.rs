//! Listing directories a page at a time, in an order that a cursor can name.
//!
//! Each page is one walk that keeps only the smallest entries after the cursor, so a directory of any size costs
//! one page of memory.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bay_ship_api::http::{Entry, ListDirRequest, ListDirResponse};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use super::resolve::{self, Parents};
use super::{Files, RelPath, is_dir, kind};
use crate::agent::error::{Code, Failure};
use crate::text::rfc3339;

const DEFAULT_LIMIT: u32 = 1000;
const MAX_LIMIT: u32 = 1000;
/// Entries looked at for one page, and directories open at once; past either the listing says it is incomplete.
const MAX_LOOKED_AT: usize = 200_000;
const MAX_DEPTH: usize = 64;
/// Time for one page.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Order of a listing: directories first, then by path.
type Key = (bool, String);

/// A walk under way.
struct Walk {
    hidden: bool,
    recursive: bool,
    after: Option<Key>,
    keep: usize,
    kept: BTreeMap<Key, Stat>,
    looked_at: usize,
    until: Instant,
    incomplete: bool,
}

impl Files {
    /// `POST /fs/list_dir`.
    pub(crate) fn list_dir(&self, request: &ListDirRequest) -> Result<ListDirResponse, Failure> {
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
        let directory = place.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut walk = Walk {
            hidden: request.hidden,
            recursive: request.recursive,
            after,
            keep: limit as usize + 1,
            kept: BTreeMap::new(),
            looked_at: 0,
            until: Instant::now() + MAX_TIME,
            incomplete: false,
        };
        let prefix = if path.is_root() { String::new() } else { path.text() + "/" };
        walk.directory(&directory, &prefix, 1)?;
        Ok(walk.page(limit as usize))
    }
}

impl Walk {
    fn directory(&mut self, directory: &OwnedFd, prefix: &str, depth: usize) -> Result<(), Failure> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let raw = entry.file_name().to_bytes();
            if matches!(raw, b"." | b"..") || (!self.hidden && raw.starts_with(b".")) {
                continue;
            }
            self.looked_at += 1;
            let late = self.looked_at.is_multiple_of(1024) && Instant::now() > self.until;
            if self.looked_at > MAX_LOOKED_AT || late {
                self.incomplete = true;
                return Ok(());
            }
            // A name that is not UTF-8 cannot be named in JSON: it is shown, with its odd bytes replaced.
            let path = format!("{prefix}{}", String::from_utf8_lossy(raw));
            let directory_entry = match entry.file_type() {
                FileType::Unknown => None,
                known => Some(known == FileType::Directory),
            };
            let descend = self.recursive && directory_entry != Some(false);
            if let Some(is_directory) = directory_entry
                && !self.wants(&(!is_directory, path.clone()))
                && !descend
            {
                continue;
            }
            let stat = match statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::ACCESS) => continue,
                Err(error) => return Err(error.into()),
            };
            let is_directory = is_dir(&stat);
            self.offer((!is_directory, path.clone()), stat);
            if self.recursive && is_directory {
                self.enter(directory, entry.file_name(), &path, depth)?;
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        at: &OwnedFd,
        name: &std::ffi::CStr,
        path: &str,
        depth: usize,
    ) -> Result<(), Failure> {
        if depth >= MAX_DEPTH {
            self.incomplete = true;
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(at.as_fd(), name, flags, Mode::empty()) {
            Ok(inner) => self.directory(&inner, &format!("{path}/"), depth + 1),
            // Gone, exchanged, or closed to the user: it is listed, and what is in it is not.
            Err(Errno::NOENT | Errno::ACCESS | Errno::LOOP | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn wants(&self, key: &Key) -> bool {
        self.after.as_ref().is_none_or(|after| key > after)
            && (self.kept.len() < self.keep || self.kept.last_key_value().is_some_and(|(last, _)| key < last))
    }

    fn offer(&mut self, key: Key, stat: Stat) {
        if self.wants(&key) {
            self.kept.insert(key, stat);
            if self.kept.len() > self.keep {
                self.kept.pop_last();
            }
        }
    }

    fn page(self, limit: usize) -> ListDirResponse {
        let more = self.kept.len() > limit;
        let next_cursor = more.then(|| self.kept.keys().nth(limit - 1).map(write_cursor)).flatten();
        let entries = self.kept.into_iter().take(limit).map(|((_, path), stat)| entry(path, &stat)).collect();
        ListDirResponse { entries, truncated: more || self.incomplete, next_cursor }
    }
}

fn entry(path: String, stat: &Stat) -> Entry {
    let kind = match kind(stat) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        _ => "other",
    };
    Entry {
        name: path.rsplit('/').next().unwrap_or_default().to_owned(),
        path,
        kind: kind.to_owned(),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified_at: modified(stat).map(rfc3339),
        mode: format!("{:04o}", stat.st_mode & 0o7777),
    }
}

fn modified(stat: &Stat) -> Option<SystemTime> {
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    let nanos = u32::try_from(stat.st_mtime_nsec).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// A cursor is the key of the last entry shown: stable when entries come and go.
fn write_cursor(key: &Key) -> String {
    let (file, path) = key;
    URL_SAFE_NO_PAD.encode(format!("{}{path}", if *file { 'f' } else { 'd' }))
}

fn read_cursor(cursor: &str) -> Result<Key, Failure> {
    let bad = || Failure::field("cursor", "not a cursor of this listing");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    match text.split_at_checked(1) {
        Some(("f", path)) => Ok((true, path.to_owned())),
        Some(("d", path)) => Ok((false, path.to_owned())),
        _ => Err(bad()),
    }
}
