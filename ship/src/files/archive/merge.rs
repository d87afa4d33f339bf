//! Moving what was unpacked to where it belongs, by renames.
//!
//! A pass that only looks comes first, so that an archive that does not fit is refused whole. What user code changes
//! between the two can leave a merge half done, with an error; it cannot lead it out of the workspace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, futimens, openat, renameat, statat};
use rustix::io::Errno;
use serde_json::json;

use super::extract::timestamps;
use super::plan::{Form, Node, Tree};
use super::reason::shown;
use super::staging::{DIRECTORY, Staging, TREE, check_identity, exchanged, identity, lost};
use crate::agent::error::{Code, Failure};
use crate::files::resolve::{self, Parents};
use crate::files::{Files, RelPath, is_dir, kind};

impl Files {
    /// Moves a tree to the directory `path`, which is made where it is missing.
    pub(super) fn merge(&self, path: &RelPath, tree: &Tree, staging: &Staging) -> Result<(), Failure> {
        let target = match resolve::resolve(&self.root, path, Parents::MustExist) {
            Ok(place) => place.stat()?.map(|stat| (place, stat)),
            Err(failure) if failure.code == Code::FileNotFound => None,
            Err(failure) => return Err(failure),
        };
        if let Some((place, stat)) = target {
            if !is_dir(&stat) {
                return Err(Failure::new(Code::NotADirectory, "the target is not a directory"));
            }
            let target = place.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
            check(tree, &tree.root, &target)?;
            return move_into(tree, &tree.root, staging.tree(), &target, &self.changes);
        }
        // Nothing there: the whole tree takes the name at once.
        let place = resolve::resolve(&self.root, path, Parents::Make)?;
        finish(tree, &tree.root, staging.tree())?;
        check_identity(staging.directory(), TREE.as_bytes(), Some(staging.made()))?;
        Ok(renameat(staging.directory(), TREE, place.directory(), place.name())?)
    }
}

/// What is at a name in the target, where there is something.
fn present(target: &OwnedFd, name: &[u8]) -> Result<Option<FileType>, Failure> {
    match statat(target, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(kind(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Looks whether everything in this directory of the tree can go where it belongs.
fn check(tree: &Tree, directory: &Node, target: &OwnedFd) -> Result<(), Failure> {
    for (name, node) in tree.children(directory.id) {
        match (node.form, present(target, name)?) {
            (_, None) => {}
            (Form::Directory, Some(FileType::Directory)) => {
                let inner = openat(target, name, DIRECTORY, Mode::empty())?;
                check(tree, node, &inner)?;
            }
            (Form::File | Form::Symlink, Some(FileType::RegularFile | FileType::Symlink)) => {}
            (Form::Directory | Form::File | Form::Symlink, Some(_)) => return Err(in_the_way(name)),
        }
    }
    Ok(())
}

/// Moves everything in this directory of the tree.
///
/// `changes` is held for each replaced file and no longer: a write that has checked its `if_match` is not overtaken,
/// and one that waits does not wait for a hundred thousand renames.
fn move_into(
    tree: &Tree,
    directory: &Node,
    staged: BorrowedFd<'_>,
    target: &OwnedFd,
    changes: &Mutex<()>,
) -> Result<(), Failure> {
    for (name, node) in tree.children(directory.id) {
        if node.form != Form::Directory {
            let _one_at_a_time = changes.lock().unwrap_or_else(PoisonError::into_inner);
            check_identity(staged, name, node.made)?;
            renameat(staged, name, target, name)?;
            continue;
        }
        let inner = open_made(staged, name, node)?;
        match present(target, name)? {
            Some(FileType::Directory) => {
                let there = openat(target, name, DIRECTORY, Mode::empty())?;
                move_into(tree, node, inner.as_fd(), &there, changes)?;
            }
            None => {
                finish(tree, node, inner.as_fd())?;
                check_identity(staged, name, node.made)?;
                renameat(staged, name, target, name)?;
            }
            Some(_) => return Err(in_the_way(name)),
        }
    }
    Ok(())
}

/// Gives a directory that is moved whole, and those in it, their permissions and times.
fn finish(tree: &Tree, directory: &Node, staged: BorrowedFd<'_>) -> Result<(), Failure> {
    for (name, node) in tree.children(directory.id) {
        if node.form == Form::Directory {
            finish(tree, node, open_made(staged, name, node)?.as_fd())?;
        }
    }
    let (mode, mtime) = directory.attributes();
    fchmod(staged, Mode::from_raw_mode(mode))?;
    if let Some(mtime) = mtime {
        futimens(staged, &timestamps(mtime))?;
    }
    Ok(())
}

fn open_made(staged: BorrowedFd<'_>, name: &[u8], node: &Node) -> Result<OwnedFd, Failure> {
    let fd = openat(staged, name, DIRECTORY, Mode::empty()).map_err(lost)?;
    if node.made == Some(identity(fd.as_fd())?) { Ok(fd) } else { Err(exchanged()) }
}

fn in_the_way(name: &[u8]) -> Failure {
    let name = shown(name);
    let mut failure =
        Failure::new(Code::Conflict, format!("something of another kind is in the way of {name}"));
    failure.details = json!({"field": "body", "reason": "in_the_way", "entry": name});
    failure
}
