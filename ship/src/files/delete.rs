//! Deleting files, and directories with all that is in them.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bay_ship_api::http::DeleteFileRequest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::resolve;
use super::{Files, RelPath, is_dir, kind};
use crate::agent::error::{Code, Failure};

/// Directories open at once. What is nested deeper is moved up, so that no depth needs more.
const MAX_OPEN: usize = 32;
/// What such a directory is called meanwhile, with a number.
pub(super) const MOVED_PREFIX: &str = ".bay-delete-";

impl Files {
    /// `POST /fs/delete_file`. A symbolic link is removed itself, never what it points to.
    pub(crate) fn delete_file(&self, request: &DeleteFileRequest) -> Result<(), Failure> {
        let path = RelPath::parse("path", &request.path)?;
        if path.is_root() {
            return Err(Failure::field("path", "the workspace itself cannot be deleted"));
        }
        let place = resolve::resolve_link(&self.root, &path)?;
        if place.is_root() {
            return Err(Failure::field("path", "this leads to the workspace itself"));
        }
        let stat = place.stat()?.ok_or_else(|| Failure::new(Code::FileNotFound, "there is no such file"))?;
        if !is_dir(&stat) {
            return Ok(unlinkat(place.directory(), place.name(), AtFlags::empty())?);
        }
        empty_whole(open_dir(place.directory(), place.name())?.as_fd())?;
        Ok(unlinkat(place.directory(), place.name(), AtFlags::REMOVEDIR)?)
    }
}

fn open_dir(at: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes everything in a directory, however deep.
pub(super) fn empty_whole(top: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut moved = 0;
    // What was moved up is emptied by the next round.
    loop {
        let before = moved;
        empty(top, top, 1, &mut moved)?;
        if moved == before {
            return Ok(());
        }
    }
}

/// Removes everything in `directory`; `top` is where too deep a directory is moved to.
fn empty(
    top: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
) -> Result<(), Failure> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name: CString = entry.file_name().to_owned();
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let file_type = match entry.file_type() {
            FileType::Unknown => kind(&statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?),
            known => known,
        };
        if file_type != FileType::Directory {
            gone_is_fine(unlinkat(directory, &name, AtFlags::empty()))?;
        } else if depth >= MAX_OPEN {
            *moved += 1;
            let up = format!("{MOVED_PREFIX}{moved}");
            renameat(directory, &name, top, Path::new(&up))?;
        } else {
            match open_dir(directory, &name) {
                Ok(inner) => empty(top, inner.as_fd(), depth + 1, moved)?,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            }
            gone_is_fine(unlinkat(directory, &name, AtFlags::REMOVEDIR))?;
        }
    }
    Ok(())
}

/// User code may be deleting the same things.
fn gone_is_fine(result: Result<(), Errno>) -> Result<(), Failure> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
