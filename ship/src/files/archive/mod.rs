//! Archives in: spooled, unpacked beside what is there already, and merged only when whole and valid.
//!
//! The body goes into a nameless file first, so that a slow sender holds no thread; then it is unpacked in steps
//! into a hidden directory of the workspace, which is one file system; then that is merged by renames. User code can see and change
//! the hidden directory all the while: every name is opened from its directory's descriptor without following
//! links, new files are really new (`O_EXCL`), and what is moved is what was made (same inode). So whatever it does
//! there, nothing outside the workspace is written; within, it can spoil its own files, which it can anyway.

mod extract;
mod merge;
pub(super) mod plan;
pub(super) mod reason;
mod staging;

use std::fs::File;
use std::io::{Seek, Write};

use bay_ship_api::http::{ArchiveResponse, MAX_ARCHIVE};

use super::resolve::{self, Parents};
use super::{Files, RelPath, is_dir};
use crate::agent::error::{Code, Failure};
use extract::Extraction;
use reason::Reason;
use staging::Staging;

/// An archive on its way in. Its methods block; what it leaves behind is removed when it is dropped.
pub(crate) struct Incoming {
    files: Files,
    path: RelPath,
    staging: Staging,
    spool: File,
    received: u64,
    extraction: Option<Extraction>,
}

impl Files {
    /// Makes ready for an archive to be unpacked into the directory `path`, which need not exist.
    pub(crate) fn take_archive(&self, path: &str) -> Result<Incoming, Failure> {
        let path = RelPath::parse("path", path)?;
        self.check_way(&path)?;
        let staging = Staging::create(self.root.try_clone()?)?;
        let spool = staging.spool()?;
        Ok(Incoming { files: self.clone(), path, staging, spool, received: 0, extraction: None })
    }

    /// Looks whether what there is already of the way to the directory consists of directories.
    fn check_way(&self, path: &RelPath) -> Result<(), Failure> {
        let mut at = path.clone();
        loop {
            let found = match resolve::resolve(&self.root, &at, Parents::MustExist) {
                Ok(place) => place.stat()?,
                Err(failure) if failure.code == Code::FileNotFound => None,
                Err(failure) => return Err(failure),
            };
            match (found, at.parent()) {
                (Some(stat), _) if is_dir(&stat) => return Ok(()),
                (Some(_), _) => {
                    return Err(Failure::new(Code::NotADirectory, "a part of the path is not a directory"));
                }
                (None, Some(parent)) => at = parent,
                (None, None) => return Err(Failure::new(Code::FileNotFound, "the workspace is gone")),
            }
        }
    }
}

impl Incoming {
    /// Takes the next piece of the body.
    pub(crate) fn spool(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.received += piece.len() as u64;
        if self.received > MAX_ARCHIVE {
            return Err(too_large());
        }
        Ok(self.spool.write_all(piece)?)
    }

    /// The body is whole. `gzip`: it was announced as compressed.
    pub(crate) fn received(&mut self, gzip: bool) -> Result<(), Failure> {
        self.spool.rewind()?;
        let spool = self.spool.try_clone()?;
        let extraction = Extraction::new(spool, self.received, gzip, &self.staging)
            .map_err(|stop| extract::failure(stop, None))?;
        self.extraction = Some(extraction);
        Ok(())
    }

    /// Unpacks a bounded piece. True once all is there and valid.
    pub(crate) fn unpack(&mut self) -> Result<bool, Failure> {
        let extraction = self.extraction.as_mut().ok_or_else(|| Reason::NotAnArchive.failure(None))?;
        extraction.step()
    }

    /// Moves what was unpacked to where it belongs.
    pub(crate) fn merge(&mut self) -> Result<ArchiveResponse, Failure> {
        let extraction = self.extraction.take().ok_or_else(|| Reason::NotAnArchive.failure(None))?;
        let tree = extraction.into_tree();
        self.files.merge(&self.path, &tree, &self.staging)?;
        Ok(ArchiveResponse {
            status: "ok".to_owned(),
            path: self.path.text(),
            entries: tree.entries,
            bytes: tree.bytes,
        })
    }
}

/// The answer to a body past [`MAX_ARCHIVE`].
pub(crate) fn too_large() -> Failure {
    let mut failure =
        Failure::new(Code::PayloadTooLarge, format!("the archive is larger than {MAX_ARCHIVE} bytes"));
    failure.details = serde_json::json!({"limit": MAX_ARCHIVE});
    failure
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
