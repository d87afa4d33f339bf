//! Writing files: whole ones by a temporary file that takes the name when it is complete, additions in place.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::PoisonError;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bay_ship_api::http::{MAX_FILE, WriteFileRequest, WriteFileResponse};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fchmod, fstat, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde_json::json;

use super::read::{Encoding, open_regular};
use super::resolve::{self, Parents, Place};
use super::{Files, RelPath, etag, is_dir, kind, not_regular};
use crate::agent::error::{Code, Failure};
use crate::python::hex;

/// A new file's permissions, where the call names none.
const DEFAULT_MODE: u32 = 0o644;

impl Files {
    /// `POST /fs/write_file`.
    pub(crate) fn write_file(&self, request: &WriteFileRequest) -> Result<WriteFileResponse, Failure> {
        let bytes = match Encoding::parse(request.encoding.as_deref())? {
            Encoding::Utf8 => std::borrow::Cow::Borrowed(request.content.as_bytes()),
            Encoding::Base64 => STANDARD
                .decode(&request.content)
                .map_err(|_| Failure::field("content", "not valid base64"))?
                .into(),
        };
        if bytes.len() as u64 > MAX_FILE {
            return Err(Failure::new(
                Code::PayloadTooLarge,
                format!("more than {MAX_FILE} bytes: upload it"),
            ));
        }
        if request.expected_size.is_some() && !request.append {
            return Err(Failure::field("expected_size", "goes with append only"));
        }
        let path = RelPath::parse("path", &request.path)?;
        if path.is_root() || request.path.ends_with('/') {
            return Err(Failure::new(Code::IsADirectory, "this names a directory"));
        }
        let place = resolve::resolve(&self.root, &path, Parents::Make)?;
        let stat = if request.append {
            self.append(&place, request, &bytes)?
        } else {
            self.replace(&place, request, &bytes)?
        };
        Ok(WriteFileResponse {
            status: "ok".to_owned(),
            path: request.path.clone(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            etag: etag(&stat),
        })
    }

    fn replace(&self, place: &Place, request: &WriteFileRequest, bytes: &[u8]) -> Result<Stat, Failure> {
        let old = writable_target(place)?;
        let mode = request.mode.or(old.as_ref().map(|old| old.st_mode)).unwrap_or(DEFAULT_MODE) & 0o777;
        let temporary = Temporary::create(place)?;
        temporary.fill(bytes, mode)?;
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        check_match(request, writable_target(place)?.as_ref())?;
        temporary.take_the_name()
    }

    fn append(&self, place: &Place, request: &WriteFileRequest, bytes: &[u8]) -> Result<Stat, Failure> {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let old = writable_target(place)?;
        check_match(request, old.as_ref())?;
        if let Some(expected) = request.expected_size {
            let size = old.as_ref().map_or(0, |old| u64::try_from(old.st_size).unwrap_or(0));
            if size != expected {
                let mut failure = Failure::new(
                    Code::Conflict,
                    format!("the file has {size} bytes, not the {expected} expected"),
                );
                failure.details = json!({"size": size, "expected_size": expected});
                return Err(failure);
            }
        }
        if old.is_none() {
            let temporary = Temporary::create(place)?;
            temporary.fill(bytes, request.mode.unwrap_or(DEFAULT_MODE) & 0o777)?;
            return temporary.take_the_name();
        }
        let (fd, before) = open_regular(place, OFlags::WRONLY | OFlags::APPEND)?;
        let mut file = File::from(fd);
        if let Err(error) = file.write_all(bytes) {
            // All or nothing: a disk that filled up half-way leaves the file as it was.
            let _ = file.set_len(u64::try_from(before.st_size).unwrap_or(0));
            return Err(error.into());
        }
        if let Some(mode) = request.mode {
            fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
        }
        fsync(&file)?;
        Ok(fstat(&file)?)
    }
}

/// What is to be written over: a regular file, or nothing.
fn writable_target(place: &Place) -> Result<Option<Stat>, Failure> {
    let stat = place.stat()?;
    match stat {
        Some(stat) if kind(&stat) != FileType::RegularFile => Err(not_regular(&stat)),
        other if place.is_root() => {
            Err(other.as_ref().filter(|stat| is_dir(stat)).map_or_else(|| Errno::ISDIR.into(), not_regular))
        }
        other => Ok(other),
    }
}

fn check_match(request: &WriteFileRequest, old: Option<&Stat>) -> Result<(), Failure> {
    let Some(wanted) = request.if_match.as_deref() else { return Ok(()) };
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

/// A file without its final name, removed again unless it takes it.
struct Temporary<'a> {
    place: &'a Place,
    name: String,
    file: File,
    named: bool,
}

impl<'a> Temporary<'a> {
    fn create(place: &'a Place) -> Result<Self, Failure> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Failure::new(Code::RuntimeError, error.to_string()))?;
        let name = format!(".bay-{}.tmp", hex(&random));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(place.directory(), &name, flags, Mode::from_raw_mode(0o600))?;
        Ok(Self { place, name, file: File::from(fd), named: false })
    }

    fn fill(&self, bytes: &[u8], mode: u32) -> Result<(), Failure> {
        (&self.file).write_all(bytes)?;
        fchmod(&self.file, Mode::from_raw_mode(mode))?;
        fsync(&self.file)?;
        Ok(())
    }

    fn take_the_name(mut self) -> Result<Stat, Failure> {
        let directory = self.place.directory();
        renameat(directory, &self.name, directory, self.place.name())?;
        self.named = true;
        // After the rename, which renews the time of change that the etag is made of.
        Ok(fstat(self.file.as_fd())?)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.named {
            let _ = unlinkat(self.place.directory(), &self.name, AtFlags::empty());
        }
    }
}
