//! Finding a path beneath the root, in user space, one component at a time.
//!
//! Each component is opened relative to the directory before it with `O_NOFOLLOW`; symbolic links are read and
//! walked here, so that one that points out of the root is told apart from one that does not (an absolute link into
//! `/workspace` is inside). `..` returns to a directory that is still held open, never to a parent that user code
//! may have moved meanwhile. So the result is beneath the root whatever happens in between.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use bay_ship_api::WORKSPACE;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, mkdirat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::kind;
use crate::agent::error::{Code, Failure};

/// Links followed for one path, as many as the kernel allows.
const MAX_LINKS: u32 = 40;
/// Directories held open at once; a deeper path is refused.
const MAX_DEPTH: usize = 256;
/// As the kernel.
const MAX_PATH: usize = 4096;

const DIRECTORY: OFlags = OFlags::from_bits_retain(
    OFlags::PATH.bits() | OFlags::DIRECTORY.bits() | OFlags::NOFOLLOW.bits() | OFlags::CLOEXEC.bits(),
);

/// A relative path with its syntax checked: not empty, not absolute, no NUL, never climbing above its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelPath(Vec<OsString>);

impl RelPath {
    /// Bay has normalised it already; what Bay would have refused is refused here, too.
    pub(crate) fn parse(field: &str, text: &str) -> Result<Self, Failure> {
        if text.is_empty() {
            return Err(Failure::path(field, "empty_path", "the path is empty"));
        }
        if text.contains('\0') {
            return Err(Failure::path(field, "null_byte", "the path contains a NUL"));
        }
        if text.starts_with('/') {
            return Err(Failure::path(field, "absolute_path", "the path must be relative to /workspace"));
        }
        if text.len() > MAX_PATH {
            return Err(Failure::field(field, format!("longer than {MAX_PATH} bytes")));
        }
        let mut parts: Vec<OsString> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or_else(|| traversal(field))?;
                }
                name => parts.push(name.into()),
            }
        }
        Ok(Self(parts))
    }

    /// The root itself.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of the directory that it is in; none for the root.
    pub(super) fn parent(&self) -> Option<Self> {
        let (_, parents) = self.0.split_last()?;
        Some(Self(parents.to_vec()))
    }

    /// As text, `.` for the root.
    pub(crate) fn text(&self) -> String {
        if self.is_root() {
            return ".".to_owned();
        }
        let parts: Vec<_> = self.0.iter().map(|part| part.to_string_lossy()).collect();
        parts.join("/")
    }
}

/// The answer to a path that leaves the root.
pub(super) fn traversal(field: &str) -> Failure {
    Failure::path(field, "path_traversal", "the path leaves /workspace")
}

/// What to do about directories on the way that do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parents {
    MustExist,
    Make,
}

/// Where a path leads: an open directory and a name in it that is no symbolic link, or the root itself.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    /// `None`: the directory itself.
    name: Option<OsString>,
}

impl Place {
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The name within; `.` for the directory itself.
    pub(super) fn name(&self) -> &Path {
        self.name.as_deref().map_or(Path::new("."), Path::new)
    }

    /// Whether this is the root.
    pub(super) fn is_root(&self) -> bool {
        self.name.is_none()
    }

    /// What is there; nothing when it does not exist.
    pub(super) fn stat(&self) -> Result<Option<Stat>, Failure> {
        match statat(&self.directory, self.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens it. The caller checks what it got.
    pub(super) fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat(&self.directory, self.name(), flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }
}

/// Follows `path` from `root`, the last component's symbolic links too.
pub(super) fn resolve(root: &OwnedFd, path: &RelPath, parents: Parents) -> Result<Place, Failure> {
    walk(root, path, parents, true)
}

/// Follows `path` from `root`, but not a symbolic link at its end.
pub(super) fn resolve_link(root: &OwnedFd, path: &RelPath) -> Result<Place, Failure> {
    walk(root, path, Parents::MustExist, false)
}

fn walk(root: &OwnedFd, path: &RelPath, parents: Parents, follow_last: bool) -> Result<Place, Failure> {
    let mut held: Vec<OwnedFd> = Vec::new();
    // What is still to be walked, the next component last.
    let mut rest: Vec<Step> = path.0.iter().rev().map(|part| Step::Name(part.clone())).collect();
    let mut links = 0;
    while let Some(step) = rest.pop() {
        let here = held.last().map_or(root.as_fd(), AsFd::as_fd);
        let name = match step {
            Step::Up => {
                held.pop().ok_or_else(|| traversal("path"))?;
                continue;
            }
            Step::Name(name) => name,
        };
        let last = rest.is_empty();
        let stat = match statat(here, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        match stat.as_ref().map(kind) {
            Some(FileType::Symlink) if !last || follow_last => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = readlinkat(here, name.as_os_str(), Vec::new())?;
                let (target, absolute) = target_steps(Path::new(&OsString::from_vec(target.into_bytes())))?;
                if absolute {
                    held.clear();
                }
                rest.extend(target.into_iter().rev());
                if rest.len() > MAX_PATH {
                    return Err(Errno::NAMETOOLONG.into());
                }
            }
            _ if last => return Ok(Place { directory: duplicate(here)?, name: Some(name) }),
            Some(FileType::Directory) => {
                let next = openat(here, name.as_os_str(), DIRECTORY, Mode::empty())?;
                hold(&mut held, next)?;
            }
            Some(_) => return Err(Errno::NOTDIR.into()),
            None if parents == Parents::Make => {
                match mkdirat(here, name.as_os_str(), Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let next = openat(here, name.as_os_str(), DIRECTORY, Mode::empty())?;
                hold(&mut held, next)?;
            }
            None => return Err(Failure::new(Code::FileNotFound, "there is no such file or directory")),
        }
    }
    // Ended on a directory itself: the root, or what a link's `..` came to.
    let here = held.last().map_or(root.as_fd(), AsFd::as_fd);
    Ok(Place { directory: duplicate(here)?, name: None })
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Up,
    Name(OsString),
}

/// A link's target as steps; true when they start at the root.
fn target_steps(target: &Path) -> Result<(Vec<Step>, bool), Failure> {
    let absolute = target.is_absolute();
    let relative = match absolute {
        true => target.strip_prefix(WORKSPACE).map_err(|_| traversal("path"))?,
        false => target,
    };
    let mut steps = Vec::new();
    for component in relative.components() {
        match component {
            Component::Normal(name) => steps.push(Step::Name(OsString::from_vec(name.as_bytes().to_vec()))),
            Component::ParentDir => steps.push(Step::Up),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(traversal("path")),
        }
    }
    Ok((steps, absolute))
}

fn hold(held: &mut Vec<OwnedFd>, next: OwnedFd) -> Result<(), Failure> {
    if held.len() >= MAX_DEPTH {
        return Err(Failure::field("path", format!("more than {MAX_DEPTH} directories deep")));
    }
    held.push(next);
    Ok(())
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}
