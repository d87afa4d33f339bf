//! Writing files: whole ones by a staged file that takes the name when it is complete, additions in place.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::sync::PoisonError;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bay_ship_api::http::{MAX_FILE, WriteFileRequest, WriteFileResponse};
use rustix::fs::{FileType, Mode, OFlags, Stat, fchmod, fstat, fsync};
use rustix::io::Errno;
use serde_json::json;

use super::read::{Encoding, open_regular};
use super::resolve::{self, Parents, Place};
use super::staging::{Staged, stamp};
use super::{Files, RelPath, etag, is_dir, kind, not_regular, size};
use crate::agent::error::{Code, Failure};

/// A new file's permissions, where the call names none.
pub(super) const DEFAULT_MODE: u32 = 0o644;
/// The permissions a call may set; nothing sets a file's user or group id bits.
pub(super) const MODE_MASK: u32 = 0o777;

impl Files {
    /// `POST /fs/write_file`.
    pub(crate) fn write_file(&self, request: &WriteFileRequest) -> Result<WriteFileResponse, Failure> {
        let bytes = content(request)?;
        if request.expected_size.is_some() && !request.append {
            return Err(Failure::field("expected_size", "goes with append only"));
        }
        let place = resolve::resolve(&self.root, &file_path(&request.path)?, Parents::Make)?;
        let stat = if request.append {
            self.append(place, request, &bytes)?
        } else {
            let old = writable_target(&place)?;
            let mut staged = Staged::create(place)?;
            staged.write(&bytes)?;
            staged.settle(mode_for(request.mode, old.as_ref()))?;
            self.publish(staged, request.if_match.as_deref())?
        };
        Ok(written(&request.path, &stat))
    }

    /// `POST /fs/create_file`. A symbolic link at the end is something, too, wherever it points.
    pub(crate) fn create_file(&self, request: &WriteFileRequest) -> Result<WriteFileResponse, Failure> {
        let bytes = content(request)?;
        for (field, given) in [
            ("append", request.append),
            ("expected_size", request.expected_size.is_some()),
            ("if_match", request.if_match.is_some()),
        ] {
            if given {
                return Err(Failure::field(field, "does not go with a new file"));
            }
        }
        let place = resolve::resolve_link(&self.root, &file_path(&request.path)?, Parents::Make)?;
        if place.is_root() || place.stat()?.is_some() {
            return Err(Errno::EXIST.into());
        }
        let mut staged = Staged::create(place)?;
        staged.write(&bytes)?;
        staged.settle(mode_for(request.mode, None))?;
        Ok(written(&request.path, &staged.appear()?))
    }

    /// Lets a settled file take its name, if what has it now is what the caller thinks.
    pub(super) fn publish(&self, staged: Staged, if_match: Option<&str>) -> Result<Stat, Failure> {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        check_match(if_match, writable_target(staged.place())?.as_ref())?;
        staged.replace()
    }

    fn append(&self, place: Place, request: &WriteFileRequest, bytes: &[u8]) -> Result<Stat, Failure> {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let old = writable_target(&place)?;
        check_match(request.if_match.as_deref(), old.as_ref())?;
        check_size(request.expected_size, old.as_ref())?;
        if old.is_none() {
            let mut staged = Staged::create(place)?;
            staged.write(bytes)?;
            staged.settle(mode_for(request.mode, None))?;
            return staged.appear();
        }
        let (fd, before) = open_regular(&place, OFlags::WRONLY | OFlags::APPEND)?;
        // User code may have exchanged what was looked at for another file: what counts is what is open now.
        check_match(request.if_match.as_deref(), Some(&before))?;
        check_size(request.expected_size, Some(&before))?;
        let mut file = File::from(fd);
        if let Err(error) = file.write_all(bytes) {
            // All or nothing: a disk that filled up half-way leaves the file as it was.
            let _ = file.set_len(size(&before));
            return Err(error.into());
        }
        if let Some(mode) = request.mode {
            fchmod(&file, Mode::from_raw_mode(mode & MODE_MASK))?;
        }
        stamp(&file);
        fsync(&file)?;
        Ok(fstat(&file)?)
    }
}

/// The path of a file to be written, by its syntax.
pub(super) fn file_path(path: &str) -> Result<RelPath, Failure> {
    let parsed = RelPath::parse("path", path)?;
    if parsed.is_root() || path.ends_with('/') {
        return Err(Failure::new(Code::IsADirectory, "this names a directory"));
    }
    Ok(parsed)
}

/// What is to be written, within its bound.
fn content(request: &WriteFileRequest) -> Result<Cow<'_, [u8]>, Failure> {
    let bytes = match Encoding::parse(request.encoding.as_deref())? {
        Encoding::Utf8 => Cow::Borrowed(request.content.as_bytes()),
        Encoding::Base64 => STANDARD
            .decode(&request.content)
            .map_err(|_| Failure::field("content", "not valid base64"))?
            .into(),
    };
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::new(Code::PayloadTooLarge, format!("more than {MAX_FILE} bytes: upload it")));
    }
    Ok(bytes)
}

/// The permissions asked for, else those the file has, else the default.
pub(super) fn mode_for(asked: Option<u32>, old: Option<&Stat>) -> u32 {
    asked.or(old.map(|old| old.st_mode)).unwrap_or(DEFAULT_MODE) & MODE_MASK
}

pub(super) fn written(path: &str, stat: &Stat) -> WriteFileResponse {
    WriteFileResponse { status: "ok".to_owned(), path: path.to_owned(), size: size(stat), etag: etag(stat) }
}

/// What is to be written over: a regular file, or nothing.
pub(super) fn writable_target(place: &Place) -> Result<Option<Stat>, Failure> {
    let stat = place.stat()?;
    match stat {
        Some(stat) if kind(&stat) != FileType::RegularFile => Err(not_regular(&stat)),
        other if place.is_root() => {
            Err(other.as_ref().filter(|stat| is_dir(stat)).map_or_else(|| Errno::ISDIR.into(), not_regular))
        }
        other => Ok(other),
    }
}

/// Whether the file is the one that `if_match` names: an etag, with or without quotes, or `*` for any.
pub(super) fn check_match(if_match: Option<&str>, old: Option<&Stat>) -> Result<(), Failure> {
    let Some(wanted) = if_match else { return Ok(()) };
    let now = old.map(etag);
    let matches = match wanted {
        "*" => now.is_some(),
        tag => now.as_deref() == Some(tag.trim_matches('"')),
    };
    if matches {
        return Ok(());
    }
    let mut failure = Failure::new(Code::Conflict, "the file is not the one that if_match names");
    failure.details = json!({"field": "if_match", "etag": now});
    Err(failure)
}

fn check_size(expected: Option<u64>, old: Option<&Stat>) -> Result<(), Failure> {
    let now = old.map_or(0, size);
    match expected {
        Some(expected) if expected != now => {
            let message = format!("the file has {now} bytes, not the {expected} expected");
            let mut failure = Failure::new(Code::Conflict, message);
            failure.details = json!({"size": now, "expected_size": expected});
            Err(failure)
        }
        _ => Ok(()),
    }
}
