//! Unpacking into the staging directory, a bounded piece at a time.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::fs::{fchmod, futimens, linkat, mkdirat, openat, statat, symlinkat, utimensat};

use super::plan::{BOUNDS, Made, Plan, Tree, What, judge};
use super::reason::{Reason, Stop};
use super::staging::{DIRECTORY, Staging, exchanged, identity, lost};
use crate::agent::error::Failure;
use crate::files::tar::Reader;

/// Entries and bytes of one step: others' file calls get a thread in between.
const STEP_ENTRIES: usize = 256;
const STEP_BYTES: usize = 8 << 20;
/// Read and written at once.
const CHUNK: usize = 64 << 10;
/// A compressed archive may unpack to this many times its size, and [`RATIO_ROOM`] more. Real ones stay below 50;
/// gzip itself reaches 1032, which is what bombs are made of.
const RATIO: u64 = 200;
const RATIO_ROOM: u64 = 16 << 20;
/// Compressed bytes that may come to nothing at once: a gigabyte of empty gzip members would be read within one step,
/// however long that takes. What real compressors make of nothing is a few bytes.
const MAX_BARREN: u64 = 1 << 20;
/// Room for headers and padding beside the bytes of files.
const OVERHEAD: u64 = 1 << 30;

/// An archive being unpacked.
pub(super) struct Extraction {
    reader: Reader<Bounded>,
    tree: Tree,
    root: OwnedFd,
    /// Directories held open: those above the last entry.
    path: Vec<(Box<[u8]>, OwnedFd)>,
    writing: Option<Writing>,
    buffer: Vec<u8>,
}

/// A file whose data is still to come.
struct Writing {
    file: File,
    plan: Plan,
}

impl Extraction {
    /// For a spooled body of `size` bytes.
    pub(super) fn new(mut spool: File, size: u64, gzip: bool, staging: &Staging) -> Result<Self, Stop> {
        let mut magic = [0; 2];
        let compressed = size >= 2 && {
            spool.read_exact(&mut magic)?;
            spool.rewind()?;
            magic == [0x1F, 0x8B]
        };
        if size == 0 || (gzip && !compressed) {
            return Err(Reason::NotAnArchive.into());
        }
        let mut limit = BOUNDS.bytes + OVERHEAD;
        let barren = Arc::new(AtomicU64::new(0));
        let input: Box<dyn Read + Send> = if compressed {
            limit = limit.min(RATIO_ROOM + RATIO * size);
            let spool = Fed { spool, barren: Arc::clone(&barren) };
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK, spool)))
        } else {
            Box::new(BufReader::with_capacity(CHUNK, spool))
        };
        Ok(Self {
            reader: Reader::new(Bounded { input, left: limit, compressed, barren }),
            tree: Tree::new(BOUNDS),
            root: staging.tree().try_clone_to_owned()?,
            path: Vec::new(),
            writing: None,
            buffer: vec![0; CHUNK],
        })
    }

    /// Unpacks a piece. True at the proper end of the archive.
    pub(super) fn step(&mut self) -> Result<bool, Failure> {
        let mut bytes = 0;
        for _ in 0..STEP_ENTRIES {
            if self.writing.is_some() && !self.write(&mut bytes)? {
                return Ok(false);
            }
            let first = self.tree.entries == 0;
            let member = match self.reader.next() {
                Ok(Some(member)) => member,
                Ok(None) => return Ok(true),
                // What is no archive at all has no right checksum at its start.
                Err(Stop::Refused(Reason::Corrupt | Reason::Truncated)) if first && self.tree.bytes == 0 => {
                    return Err(Reason::NotAnArchive.failure(None));
                }
                Err(stop) => return Err(failure(stop, None)),
            };
            let refused = |reason: Reason| reason.failure(Some(&member.name));
            let plan = judge(&member, &BOUNDS).map_err(refused)?;
            self.tree.admit(&plan).map_err(refused)?;
            self.make(plan)?;
        }
        Ok(false)
    }

    /// What was unpacked, in its staging directory.
    pub(super) fn into_tree(self) -> Tree {
        self.tree
    }

    fn make(&mut self, plan: Plan) -> Result<(), Failure> {
        let Some((name, parents)) = plan.path.split_last() else { return Ok(()) };
        self.enter(parents)?;
        let at = self.path.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
        let made = match &plan.what {
            What::Directory => {
                self.enter(&plan.path)?;
                return Ok(());
            }
            What::File { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(at, &**name, flags, Mode::from_raw_mode(0o600)).map_err(lost)?;
                let made = identity(file.as_fd())?;
                self.record(&plan, made)?;
                self.writing = Some(Writing { file: file.into(), plan });
                return Ok(());
            }
            What::Symlink { target } => {
                symlinkat(target.as_slice(), at, &**name).map_err(lost)?;
                let times = timestamps(plan.mtime);
                utimensat(at, &**name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(lost)?;
                let stat = statat(at, &**name, AtFlags::SYMLINK_NOFOLLOW).map_err(lost)?;
                (stat.st_dev, stat.st_ino)
            }
            What::Hardlink { source } => link(&self.tree, self.root.as_fd(), source, at, name)?,
        };
        self.record(&plan, made)
    }

    /// Writes data of the present file. True when that is complete.
    fn write(&mut self, bytes: &mut usize) -> Result<bool, Failure> {
        let Some(writing) = &mut self.writing else { return Ok(true) };
        loop {
            let count = self
                .reader
                .data(&mut self.buffer)
                .map_err(|stop| failure(stop, Some(&writing.plan.path.join(&b'/'))))?;
            if count == 0 {
                break;
            }
            writing.file.write_all(&self.buffer[..count])?;
            *bytes += count;
            if *bytes >= STEP_BYTES {
                return Ok(false);
            }
        }
        fchmod(&writing.file, Mode::from_raw_mode(writing.plan.mode))?;
        futimens(&writing.file, &timestamps(writing.plan.mtime))?;
        self.writing = None;
        Ok(true)
    }

    /// Makes `self.path` lead to this directory, making what is missing.
    fn enter(&mut self, path: &[Box<[u8]>]) -> Result<(), Failure> {
        let common = self.path.iter().zip(path).take_while(|((held, _), wanted)| held == *wanted).count();
        self.path.truncate(common);
        for depth in common..path.len() {
            let above = self.tree.find(&path[..depth]).map(|node| node.id).ok_or_else(exchanged)?;
            let at = self.path.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let name = &path[depth];
            let node = self.tree.child(above, name).ok_or_else(exchanged)?;
            if node.made.is_none() {
                mkdirat(at, &**name, Mode::from_raw_mode(0o700)).map_err(lost)?;
            }
            let next = openat(at, &**name, DIRECTORY, Mode::empty()).map_err(lost)?;
            let found = identity(next.as_fd())?;
            if *node.made.get_or_insert(found) != found {
                return Err(exchanged());
            }
            self.path.push((name.clone(), next));
        }
        Ok(())
    }

    fn record(&mut self, plan: &Plan, made: Made) -> Result<(), Failure> {
        let (name, parents) = plan.path.split_last().ok_or_else(exchanged)?;
        let above = self.tree.find(parents).map(|node| node.id).ok_or_else(exchanged)?;
        self.tree.child(above, name).ok_or_else(exchanged)?.made = Some(made);
        Ok(())
    }
}

/// Gives an earlier file of the archive another name.
fn link(
    tree: &Tree,
    root: BorrowedFd<'_>,
    source: &[Box<[u8]>],
    at: BorrowedFd<'_>,
    name: &[u8],
) -> Result<Made, Failure> {
    let (last, parents) = source.split_last().ok_or_else(exchanged)?;
    let made = tree.find(source).and_then(|node| node.made).ok_or_else(exchanged)?;
    let mut above = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
    for parent in parents {
        above = openat(&above, &**parent, DIRECTORY, Mode::empty()).map_err(lost)?;
    }
    linkat(&above, &**last, at, name, AtFlags::empty()).map_err(lost)?;
    let stat = statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(lost)?;
    if (stat.st_dev, stat.st_ino) == made { Ok(made) } else { Err(exchanged()) }
}

/// Sets the time of change of the content, and leaves that of access.
pub(super) fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    }
}

/// The answer to an archive that could not be read on.
pub(super) fn failure(stop: Stop, entry: Option<&[u8]>) -> Failure {
    match stop {
        Stop::Refused(reason) => reason.failure(entry),
        Stop::Io(error) => error.into(),
    }
}

/// A reader that ends in an error when too much comes out of it.
struct Bounded {
    input: Box<dyn Read + Send>,
    left: u64,
    compressed: bool,
    /// What [`Fed`] counts.
    barren: Arc<AtomicU64>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.barren.store(0, Ordering::Relaxed);
        self.left = self.left.checked_sub(count as u64).ok_or(match self.compressed {
            true => io::ErrorKind::QuotaExceeded,
            false => io::ErrorKind::FileTooLarge,
        })?;
        Ok(count)
    }
}

/// The compressed bytes, in an error when too many of them come to nothing.
struct Fed {
    spool: File,
    /// Bytes since something came out.
    barren: Arc<AtomicU64>,
}

impl Read for Fed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.spool.read(buffer)? as u64;
        if self.barren.fetch_add(count, Ordering::Relaxed) + count > MAX_BARREN {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(usize::try_from(count).unwrap_or(buffer.len()))
    }
}
