//! A directory as a tar archive, made piece by piece while it is sent.
//!
//! What cannot be put in truly (a file that became shorter, one that may not be read, a tree too deep) ends in an
//! error, and so in a broken stream: an archive that ends properly has everything but devices, FIFOs and sockets.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::own::is_own;
use super::resolve::{self, Parents};
use super::tar::{BLOCK, Kind, Member, padding, write_header};
use super::{Files, RelPath, is_dir, kind};
use crate::agent::error::{Code, Failure};

/// About so much comes at once.
const PIECE: usize = 128 << 10;
/// Directories open at once, one descriptor each; a deeper tree breaks the stream.
const MAX_DEPTH: usize = 64;
/// Bytes of a name with its directories: what the depth and the file system's own bound allow, and no more.
const MAX_NAME: usize = 16 << 10;
/// Entries looked at for one piece: a directory of a million FIFOs gives no bytes, but must give the thread back.
const PIECE_ENTRIES: usize = 512;

/// A directory being packed. Its methods block.
pub(crate) struct Packing {
    /// The directories being read, innermost last.
    open: Vec<Dir>,
    /// The innermost one's name with a slash at its end; empty for the first.
    prefix: Vec<u8>,
    /// The file being read, bytes of it still to come, and zeros after them.
    file: Option<(File, u64, usize)>,
    ended: bool,
    /// For people: the directory's own name.
    pub(crate) name: String,
}

impl Files {
    /// Opens a directory for `GET /fs/download`.
    pub(crate) fn pack(&self, path: &str) -> Result<Packing, Failure> {
        let path = RelPath::parse("path", path)?;
        let place = resolve::resolve(&self.root, &path, Parents::MustExist)?;
        let stat = place.stat()?.ok_or(Errno::NOENT)?;
        if !is_dir(&stat) {
            return Err(Failure::new(Code::NotADirectory, "this is not a directory"));
        }
        let directory = place.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
        let name = match path.is_root() {
            true => "workspace".to_owned(),
            false => path.text().rsplit('/').next().unwrap_or("workspace").to_owned(),
        };
        Ok(Packing { open: vec![Dir::new(directory)?], prefix: Vec::new(), file: None, ended: false, name })
    }
}

impl Packing {
    /// The next piece; an empty one may come in between, none at the end.
    pub(crate) fn piece(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(PIECE + 2 * BLOCK);
        let mut looked_at = 0;
        while out.len() < PIECE && looked_at < PIECE_ENTRIES {
            if self.file.is_some() {
                self.data(&mut out)?;
                continue;
            }
            let Some(directory) = self.open.last_mut() else {
                out.resize(out.len() + 2 * BLOCK, 0);
                self.ended = true;
                break;
            };
            match directory.read() {
                None => self.leave(),
                Some(entry) => {
                    let entry = entry?;
                    let name = entry.file_name().to_bytes();
                    looked_at += 1;
                    if !matches!(name, b"." | b"..") && !is_own(name) {
                        self.entry(name, &mut out)?;
                    }
                }
            }
        }
        Ok(Some(out))
    }

    fn leave(&mut self) {
        self.open.pop();
        self.prefix.pop();
        let above = self.prefix.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        self.prefix.truncate(above);
    }

    fn entry(&mut self, name: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let Some(directory) = self.open.last() else { return Ok(()) };
        let at = directory.fd()?;
        let stat = match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Deleted meanwhile: then it is not in the archive.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let path = [self.prefix.as_slice(), name].concat();
        if path.len() >= MAX_NAME {
            return Err(Failure::field("path", "a name in it is too long"));
        }
        match kind(&stat) {
            FileType::RegularFile => {
                let Some((fd, stat)) = open_as(at, name, OFlags::NONBLOCK, FileType::RegularFile)? else {
                    return Ok(());
                };
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                write_header(out, &member(path, Kind::File, Vec::new(), size, &stat));
                self.file = Some((fd.into(), size, padding(size)));
            }
            FileType::Symlink => match readlinkat(at, name, Vec::new()) {
                Ok(target) => {
                    write_header(out, &member(path, Kind::Symlink, target.into_bytes(), 0, &stat));
                }
                Err(Errno::NOENT | Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            },
            FileType::Directory => {
                let Some((fd, stat)) = open_as(at, name, OFlags::DIRECTORY, FileType::Directory)? else {
                    return Ok(());
                };
                if self.open.len() >= MAX_DEPTH {
                    return Err(Failure::field("path", format!("more than {MAX_DEPTH} directories deep")));
                }
                let path = [path.as_slice(), b"/"].concat();
                self.prefix.clone_from(&path);
                write_header(out, &member(path, Kind::Directory, Vec::new(), 0, &stat));
                self.open.push(Dir::new(fd)?);
            }
            // A device, a FIFO, a socket: nothing that can be carried.
            _ => {}
        }
        Ok(())
    }

    /// More of the present file.
    fn data(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let Some((file, left, zeros)) = &mut self.file else { return Ok(()) };
        let count =
            usize::try_from(*left).unwrap_or(usize::MAX).min(PIECE.saturating_sub(out.len()).max(BLOCK));
        let had = out.len();
        file.by_ref().take(count as u64).read_to_end(out)?;
        // Padding it would make up content that was never there.
        if out.len() - had < count {
            return Err(Failure::new(Code::Conflict, "a file became shorter while it was read"));
        }
        *left -= count as u64;
        if *left == 0 {
            out.resize(out.len() + *zeros, 0);
            self.file = None;
        }
        Ok(())
    }
}

/// Opens what was looked at, unless it has become something else or is gone.
fn open_as(
    at: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    wanted: FileType,
) -> Result<Option<(OwnedFd, Stat)>, Failure> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = match openat(at, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(fd.as_fd())?;
    Ok((kind(&stat) == wanted).then_some((fd, stat)))
}

fn member(name: Vec<u8>, kind: Kind, target: Vec<u8>, size: u64, stat: &Stat) -> Member {
    Member { name, kind, target, mode: stat.st_mode & 0o777, mtime: (stat.st_mtime, 0), size }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
