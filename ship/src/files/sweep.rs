//! Removing what a Ship that was killed left under a passing name.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, statat, unlinkat};

use super::delete::{Removal, open_dir, own_tree};
use super::own::is_passing_name;
use super::pool::SLICE;
use super::{Files, is_dir};
use crate::agent::error::Failure;

/// What is younger may be another session's that shares the locker and is at work: an archive may take an hour to
/// arrive, and then waits for its turn to be unpacked.
pub(crate) const LEFT_BEHIND: Duration = Duration::from_secs(2 * 3600);
/// Entries between two looks at the clock.
const CLOCK: u32 = 64;

/// A sweep under way.
pub(crate) struct Sweep {
    entries: Dir,
    /// Changed last at this time or before, in seconds since 1970: what is to go.
    before: i64,
    /// A directory that is being removed.
    removal: Option<Removal>,
}

impl Files {
    /// Starts to remove what has a passing name directly in the workspace and was not changed for so long; to be
    /// carried on with [`Sweep::slice`].
    pub(crate) fn sweep(&self, age: Duration) -> Result<Sweep, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = i64::try_from(now.saturating_sub(age).as_secs()).unwrap_or(0);
        Ok(Sweep { entries: Dir::read_from(&self.root)?, before, removal: None })
    }
}

impl Sweep {
    /// Goes on for a moment; answers at the end. What cannot be removed is left.
    pub(crate) fn slice(&mut self) -> Result<Option<()>, Failure> {
        let end = Instant::now() + SLICE;
        let mut count: u32 = 0;
        loop {
            if let Some(removal) = &mut self.removal {
                if let Ok(None) = removal.slice() {
                    return Ok(None);
                }
                self.removal = None;
            }
            count += 1;
            if count.is_multiple_of(CLOCK) && Instant::now() > end {
                return Ok(None);
            }
            let Some(entry) = self.entries.read() else { return Ok(Some(())) };
            let entry = entry?;
            if is_passing_name(entry.file_name().to_bytes()) {
                self.entry(entry.file_name().to_owned());
            }
        }
    }

    fn entry(&mut self, name: CString) {
        let Ok(root) = self.entries.fd() else { return };
        let Ok(stat) = statat(root, &name, AtFlags::SYMLINK_NOFOLLOW) else { return };
        // The time that user code cannot set.
        if stat.st_ctime > self.before {
            return;
        }
        if is_dir(&stat) {
            let (parent, top) = (root.as_fd().try_clone_to_owned(), open_dir(root, &name));
            if let (Ok(parent), Ok(top)) = (parent, top) {
                self.removal = Some(own_tree(parent, &name.to_string_lossy(), top));
            }
        } else {
            let _ = unlinkat(root, &name, AtFlags::empty());
        }
    }
}
