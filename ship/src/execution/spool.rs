//! What a stream of an execution said, from its first byte: in memory up to the inline bound, then in a file without
//! a name, up to the profile's bound.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bay_ship_api::SPOOL_DIR;
use bay_ship_api::http::MAX_INLINE_OUTPUT;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::init::RUN_AGENT_DIR;

/// Opens a file that has no name: nobody else can find it, and its space is free when the last reader is gone,
/// however Ship ends.
fn open() -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let open = |folder: &str| rustix::fs::open(folder, flags, Mode::from_raw_mode(0o600));
    match open(SPOOL_DIR) {
        // The driver gave no folder on a disk: the container's memory, then. A full disk is no reason for that.
        Err(Errno::NOENT) => Ok(open(RUN_AGENT_DIR)?.into()),
        other => Ok(other?.into()),
    }
}

/// How much all executions together may keep in files.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU64,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { left: AtomicU64::new(bytes) }
    }

    /// Takes as much of `wanted` as there is.
    fn take(&self, wanted: u64) -> u64 {
        let taken = |left: u64| left.min(wanted);
        let before =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left - taken(left)));
        before.map_or(0, taken)
    }

    fn give_back(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// One stream. Writing to the file happens elsewhere, on a thread: this says what has to be written.
#[derive(Debug)]
pub(super) struct Kept {
    /// The first bytes, as many as an answer carries.
    head: Vec<u8>,
    /// Everything there ever was.
    total: u64,
    /// What of it can still be read, from the start.
    kept: u64,
    file: Option<Arc<File>>,
    /// Not written yet, in the order in which it came.
    pending: Vec<u8>,
    /// Being written.
    in_flight: u64,
    /// A write failed: nothing more is kept.
    failed: bool,
    /// Of the budget.
    charged: u64,
    budget: Arc<Budget>,
}

impl Kept {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            head: Vec::new(),
            total: 0,
            kept: 0,
            file: None,
            pending: Vec::new(),
            in_flight: 0,
            failed: false,
            charged: 0,
            budget,
        }
    }

    /// Takes what comes next. `limit` is the most that is ever kept.
    pub(super) fn push(&mut self, bytes: &[u8], limit: u64) {
        let so_far = self.kept + self.in_flight + self.pending.len() as u64;
        // What follows a loss would read as if it belonged to what came before.
        let whole = so_far == self.total && !self.failed;
        self.total += bytes.len() as u64;
        if !whole {
            return;
        }
        let room = limit.max(MAX_INLINE_OUTPUT as u64) - so_far;
        let bytes = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        let (head, rest) = bytes.split_at(bytes.len().min(MAX_INLINE_OUTPUT - self.head.len()));
        self.head.extend_from_slice(head);
        self.kept += head.len() as u64;
        let granted = self.budget.take(rest.len() as u64);
        self.charged += granted;
        self.pending
            .extend_from_slice(&rest[..usize::try_from(granted).unwrap_or(usize::MAX).min(rest.len())]);
    }

    /// There was more, nobody knows how much: the total is the least it can be.
    pub(super) fn lose(&mut self) {
        self.total += 1;
    }

    /// Whether something is to be written, or being written.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.pending.is_empty() || self.in_flight > 0
    }

    /// What has to be written now, if anything: where, what, and the file if there is one by now. One at a time, in
    /// their order; afterwards call [`Kept::written`].
    pub(super) fn overflow(&mut self) -> Option<(u64, Vec<u8>, Option<Arc<File>>)> {
        if self.pending.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.pending);
        let at = self.kept + self.in_flight - MAX_INLINE_OUTPUT as u64;
        self.in_flight += bytes.len() as u64;
        Some((at, bytes, self.file.clone()))
    }

    /// The end of a write. One that failed loses what it carried and all that follows.
    pub(super) fn written(&mut self, count: usize, result: io::Result<Arc<File>>) {
        self.in_flight -= count as u64;
        match result {
            Ok(file) if !self.failed => {
                self.file = Some(file);
                self.kept += count as u64;
            }
            Ok(_) | Err(_) => self.failed = true,
        }
    }

    /// Lets go of everything but the count.
    pub(super) fn forget(&mut self) {
        (self.head, self.pending, self.file) = (Vec::new(), Vec::new(), None);
        self.kept = 0;
        self.failed = true;
        self.budget.give_back(std::mem::take(&mut self.charged));
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Every byte there ever was, and how many of them can be read.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.total, self.kept)
    }

    /// What it takes in memory.
    pub(super) fn memory(&self) -> usize {
        self.head.capacity() + self.pending.capacity()
    }

    /// What it takes on the disk.
    pub(super) fn on_disk(&self) -> u64 {
        self.charged
    }

    /// Where to read from `offset` on: bytes of the head, or the file and the place in it.
    pub(super) fn at(&self, offset: u64, most: usize) -> Source {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(head) = self.head.get(from..).filter(|head| !head.is_empty()) {
            return Source::Memory(head[..head.len().min(most)].to_vec());
        }
        let left = self.kept.saturating_sub(offset);
        match &self.file {
            Some(file) if left > 0 => Source::File {
                file: Arc::clone(file),
                at: offset - MAX_INLINE_OUTPUT as u64,
                count: usize::try_from(left).unwrap_or(usize::MAX).min(most),
            },
            _ => Source::Nothing,
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.give_back(self.charged);
    }
}

/// Where bytes of a stream are.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Vec<u8>),
    File {
        file: Arc<File>,
        at: u64,
        count: usize,
    },
    /// Past the end of what is kept.
    Nothing,
}

/// Writes to the file, or to a new one. Blocks.
pub(super) fn write(file: Option<Arc<File>>, at: u64, bytes: &[u8]) -> io::Result<Arc<File>> {
    let file = match file {
        Some(file) => file,
        None => Arc::new(open()?),
    };
    file.write_all_at(bytes, at)?;
    Ok(file)
}

/// Reads from the file. Blocks.
pub(super) fn read(file: &File, at: u64, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let mut done = 0;
    while done < count {
        match file.read_at(&mut bytes[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(budget: u64) -> Kept {
        Kept::new(Arc::new(Budget::new(budget)))
    }

    /// What the pool's thread does with an overflow, into a file of the test's.
    fn write_out(kept: &mut Kept) {
        if let Some((at, bytes, file)) = kept.overflow() {
            let file = file.unwrap_or_else(|| Arc::new(tempfile::tempfile().unwrap()));
            kept.written(bytes.len(), write(Some(file), at, &bytes));
        }
    }

    fn read_from(kept: &Kept, offset: u64, most: usize) -> Vec<u8> {
        match kept.at(offset, most) {
            Source::Memory(bytes) => bytes,
            Source::File { file, at, count } => read(&file, at, count).unwrap(),
            Source::Nothing => Vec::new(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_kept_is_a_prefix_of_what_was_said(
            pieces in prop::collection::vec((any::<u8>(), 0usize..400_000, any::<bool>()), 1..12),
            limit in 0u64..3_000_000, budget in 0u64..3_000_000
        ) {
            let (mut kept, mut all) = (kept(budget), Vec::new());
            for (byte, size, write) in pieces {
                let piece = vec![byte; size];
                kept.push(&piece, limit);
                all.extend(piece);
                if write {
                    write_out(&mut kept);
                }
            }
            write_out(&mut kept);
            let (total, readable) = kept.sizes();
            prop_assert_eq!(total, all.len() as u64);
            let inline = MAX_INLINE_OUTPUT as u64;
            prop_assert_eq!(readable, total.min(limit.max(inline)).min(inline + budget));
            let mut back = Vec::new();
            while (back.len() as u64) < readable {
                let more = read_from(&kept, back.len() as u64, 300_000);
                prop_assert!(!more.is_empty());
                back.extend(more);
            }
            prop_assert!(read_from(&kept, readable, 10).is_empty());
            prop_assert!(all.starts_with(&back));
            prop_assert!(kept.head().len() <= MAX_INLINE_OUTPUT);
            let shared = Arc::clone(&kept.budget);
            kept.forget();
            prop_assert!(read_from(&kept, 0, 10).is_empty() && kept.sizes() == (total, 0));
            drop(kept);
            prop_assert_eq!(shared.left.load(Ordering::Relaxed), budget);
        }
    }

    #[test]
    fn a_write_that_fails_loses_what_follows_it_and_says_so() {
        let mut kept = kept(64 << 20);
        kept.push(&vec![b'a'; MAX_INLINE_OUTPUT + 10], 64 << 20);
        let (_, first, _) = kept.overflow().unwrap();
        // One that was asked for before that was known.
        kept.push(b"next", 64 << 20);
        let (_, second, _) = kept.overflow().unwrap();
        kept.written(first.len(), Err(io::Error::other("full")));
        kept.written(second.len(), Ok(Arc::new(tempfile::tempfile().unwrap())));
        kept.push(b"later", 64 << 20);
        assert!(!kept.is_unsettled());
        assert_eq!(kept.sizes(), (MAX_INLINE_OUTPUT as u64 + 19, MAX_INLINE_OUTPUT as u64));
    }
}
