//! What a stream of an execution said, from its first byte: in memory up to the inline bound, then in a file without
//! a name, up to the profile's bound.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bay_ship_api::SPOOL_DIR;
use bay_ship_api::http::MAX_INLINE_OUTPUT;
use rustix::fs::{Mode, OFlags};

use crate::init::RUN_AGENT_DIR;

/// Opens a file that has no name: nobody else can find it, and its space is free when the last reader is gone,
/// however Ship ends.
pub(super) fn open() -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let open = |folder: &str| rustix::fs::open(folder, flags, Mode::from_raw_mode(0o600));
    // The driver's own folder on a disk, or, where it gave none, the container's memory.
    Ok(open(SPOOL_DIR).or_else(|_| open(RUN_AGENT_DIR))?.into())
}

/// One stream. Writing to the file happens elsewhere, on a thread: this says what has to be written.
#[derive(Debug, Default)]
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
}

/// A piece that has to go to the file.
#[derive(Debug)]
pub(super) struct Overflow {
    /// Where the file is; none yet: it must be opened.
    pub(super) file: Option<Arc<File>>,
    /// Where it belongs.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

impl Overflow {
    /// Writes it. Blocks.
    pub(super) fn write(self) -> io::Result<Arc<File>> {
        let file = match self.file {
            Some(file) => file,
            None => Arc::new(open()?),
        };
        file.write_all_at(&self.bytes, self.at)?;
        Ok(file)
    }
}

impl Kept {
    /// Takes what comes next. `limit` is the most that is ever kept.
    pub(super) fn push(&mut self, bytes: &[u8], limit: u64) {
        // What follows a loss would read as if it belonged to what came before.
        let whole = self.kept + self.pending.len() as u64 == self.total;
        self.total += bytes.len() as u64;
        if !whole {
            return;
        }
        let room = limit.max(MAX_INLINE_OUTPUT as u64) - self.kept - self.pending.len() as u64;
        let bytes = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        let (head, rest) = bytes.split_at(bytes.len().min(MAX_INLINE_OUTPUT - self.head.len()));
        self.head.extend_from_slice(head);
        self.kept += head.len() as u64;
        self.pending.extend_from_slice(rest);
    }

    /// There was more, nobody knows how much: the total is the least it can be.
    pub(super) fn lose(&mut self) {
        self.total += 1;
    }

    /// What has to be written now, if anything; afterwards call [`Kept::written`].
    pub(super) fn overflow(&mut self) -> Option<Overflow> {
        if self.pending.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.pending);
        Some(Overflow { file: self.file.clone(), at: self.kept - MAX_INLINE_OUTPUT as u64, bytes })
    }

    /// The end of a write. One that failed loses what it carried and all that follows.
    pub(super) fn written(&mut self, count: usize, result: io::Result<Arc<File>>) {
        if let Ok(file) = result {
            self.file = Some(file);
            self.kept += count as u64;
        }
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
        if self.file.is_some() { self.kept.saturating_sub(MAX_INLINE_OUTPUT as u64) } else { 0 }
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

    /// What the pool's thread does with an overflow, into a file of the test's.
    fn write_out(kept: &mut Kept) {
        if let Some(mut overflow) = kept.overflow() {
            let count = overflow.bytes.len();
            overflow.file.get_or_insert_with(|| Arc::new(tempfile::tempfile().unwrap()));
            kept.written(count, overflow.write());
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
            pieces in prop::collection::vec((any::<u8>(), 0usize..400_000), 1..12), limit in 0u64..3_000_000
        ) {
            let (mut kept, mut all) = (Kept::default(), Vec::new());
            for (byte, size) in pieces {
                let piece = vec![byte; size];
                kept.push(&piece, limit);
                all.extend(piece);
                write_out(&mut kept);
            }
            let (total, readable) = kept.sizes();
            prop_assert_eq!(total, all.len() as u64);
            let bound = limit.max(MAX_INLINE_OUTPUT as u64);
            prop_assert_eq!(readable, total.min(bound));
            let mut back = Vec::new();
            while (back.len() as u64) < readable {
                let more = read_from(&kept, back.len() as u64, 300_000);
                prop_assert!(!more.is_empty());
                back.extend(more);
            }
            prop_assert!(read_from(&kept, readable, 10).is_empty());
            prop_assert!(all.starts_with(&back));
            prop_assert!(kept.head().len() <= MAX_INLINE_OUTPUT);
        }
    }

    #[test]
    fn a_write_that_fails_loses_what_follows_it_and_says_so() {
        let mut kept = Kept::default();
        kept.push(&vec![b'a'; MAX_INLINE_OUTPUT + 10], 64 << 20);
        let overflow = kept.overflow().unwrap();
        kept.written(overflow.bytes.len(), Err(io::Error::other("full")));
        kept.push(b"later", 64 << 20);
        assert!(kept.overflow().is_none());
        assert_eq!(kept.sizes(), (MAX_INLINE_OUTPUT as u64 + 15, MAX_INLINE_OUTPUT as u64));
    }
}
