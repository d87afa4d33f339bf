//! Making directories, and giving files and directories other names.

use std::sync::PoisonError;

use bay_ship_api::http::{MakeDirRequest, MakeDirResponse, MoveRequest};
use rustix::fs::{AtFlags, Mode, RenameFlags, Stat, fstat, mkdirat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::resolve::{self, Parents, Place};
use super::{Files, RelPath, is_dir};
use crate::agent::error::{Code, Failure};

impl Files {
    /// `POST /fs/make_dir`. A symbolic link to a directory of the workspace counts as one.
    pub(crate) fn make_dir(&self, request: &MakeDirRequest) -> Result<MakeDirResponse, Failure> {
        let path = RelPath::parse("path", &request.path)?;
        let place = resolve::resolve(&self.root, &path, Parents::Make)?;
        let created = !place.is_root()
            && match mkdirat(place.directory(), place.name(), Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
        if !created && !place.stat()?.as_ref().is_some_and(is_dir) {
            return Err(Failure::new(Code::AlreadyExists, "there is something that is not a directory"));
        }
        Ok(MakeDirResponse { status: "ok".to_owned(), path: request.path.clone(), created })
    }

    /// `POST /fs/move`. One rename: who looks sees the old name or the new one. A symbolic link at the end of either
    /// path is moved or replaced itself.
    pub(crate) fn move_file(&self, request: &MoveRequest) -> Result<(), Failure> {
        let source = RelPath::parse("from", &request.from)?;
        let target = RelPath::parse("to", &request.to)?;
        for (field, path) in [("from", &source), ("to", &target)] {
            if path.is_root() {
                return Err(Failure::field(field, "the workspace itself can be neither moved nor replaced"));
            }
        }
        // Before parents are made within what is to be moved.
        if target != source && target.is_within(&source) {
            return Err(into_itself());
        }
        let from = resolve::resolve_link(&self.root, &source, Parents::MustExist).map_err(of("from"))?;
        let stat = from.stat()?.ok_or(Errno::NOENT).map_err(|error| of("from")(error.into()))?;
        let to = resolve::resolve_link(&self.root, &target, Parents::Make).map_err(of("to"))?;
        if from.is_root() || to.is_root() {
            return Err(Failure::field("from", "one of the paths leads to the workspace itself"));
        }
        // Between another call's check of `if_match` and its change nothing is moved.
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let renamed = if request.overwrite {
            renameat(from.directory(), from.name(), to.directory(), to.name())
        } else {
            renameat_with(from.directory(), from.name(), to.directory(), to.name(), RenameFlags::NOREPLACE)
        };
        renamed.map_err(|error| refused(error, &stat))?;
        if request.overwrite { drop_other_name(&from, &to, &stat) } else { Ok(()) }
    }
}

/// A rename between two names of one file (hard links) does nothing and says that all is well: the old name goes.
fn drop_other_name(from: &Place, to: &Place, moved: &Stat) -> Result<(), Failure> {
    let same = |a: &Stat, b: &Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
    if is_dir(moved) || !from.stat()?.is_some_and(|left| same(&left, moved)) {
        return Ok(());
    }
    let one_name = from.name() == to.name() && same(&fstat(from.directory())?, &fstat(to.directory())?);
    if one_name { Ok(()) } else { Ok(unlinkat(from.directory(), from.name(), AtFlags::empty())?) }
}

/// Names the field in an answer about a path.
fn of(field: &'static str) -> impl Fn(Failure) -> Failure {
    move |mut failure| {
        failure.message = format!("{field}: {}", failure.message);
        if let Some(name) = failure.details.get_mut("field") {
            *name = field.into();
        }
        failure
    }
}

/// What a rename's error means, where the file system's words alone would not say.
fn refused(error: Errno, source: &Stat) -> Failure {
    match error {
        Errno::INVAL if is_dir(source) => into_itself(),
        Errno::INVAL => Failure::new(
            Code::RuntimeError,
            "this file system cannot rename without replacing: look first, then use overwrite",
        ),
        Errno::EXIST => Failure::new(Code::AlreadyExists, "to: there is something already"),
        Errno::NOTEMPTY => {
            Failure::new(Code::AlreadyExists, "to: a directory that is not empty is not replaced")
        }
        Errno::ISDIR => Failure::new(Code::IsADirectory, "to: a directory is not replaced by a file"),
        Errno::NOTDIR => Failure::new(Code::NotADirectory, "to: a file is not replaced by a directory"),
        Errno::XDEV => Failure::field("to", "lies on another file system than `from`"),
        other => other.into(),
    }
}

fn into_itself() -> Failure {
    Failure::field("to", "a directory cannot be moved into itself")
}
