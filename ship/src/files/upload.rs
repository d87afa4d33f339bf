//! A file that arrives in pieces.

use std::os::fd::AsFd;

use bay_ship_api::http::{MAX_UPLOAD, WriteFileResponse};

use super::Files;
use super::resolve::{self, Parents};
use super::staging::Staged;
use super::write::{check_match, file_path, mode_for, writable_target, written};
use crate::agent::error::{Code, Failure};
use crate::sys;

/// After this many bytes the kernel is asked to begin writing them to the disk: the disk works while the rest
/// arrives, memory does not fill with what is still to be written, and the last fsync does not hold a thread for
/// a whole gigabyte.
const WRITEBACK: u64 = 8 << 20;

/// What an upload says before its body.
pub(crate) struct UploadRequest {
    /// Relative path; parents are made.
    pub(crate) path: String,
    /// Permission bits, masked with 0777.
    pub(crate) mode: Option<u32>,
    /// As in `write_file`; checked before the body and again after it.
    pub(crate) if_match: Option<String>,
}

/// An upload under way. Nothing is left of it unless it is finished.
pub(crate) struct Upload {
    files: Files,
    request: UploadRequest,
    staged: Staged,
    mode: u32,
    size: u64,
    /// How much of it the kernel was asked to write out.
    begun: u64,
}

impl Files {
    /// `POST /fs/upload`, up to its body: what can be refused is refused here.
    pub(crate) fn begin_upload(&self, request: UploadRequest) -> Result<Upload, Failure> {
        let path = file_path(&request.path)?;
        let place = resolve::resolve(&self.root, &path, Parents::Make)?;
        let old = writable_target(&place)?;
        check_match(request.if_match.as_deref(), old.as_ref())?;
        let mode = mode_for(request.mode, old.as_ref());
        Ok(Upload { files: self.clone(), request, staged: Staged::create(place)?, mode, size: 0, begun: 0 })
    }
}

impl Upload {
    /// The next piece.
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.size += piece.len() as u64;
        if self.size > MAX_UPLOAD {
            return Err(too_large());
        }
        self.staged.write(piece)?;
        if self.size - self.begun >= WRITEBACK {
            sys::start_writeback(self.staged.file().as_fd(), self.begun, self.size - self.begun);
            self.begun = self.size;
        }
        Ok(())
    }

    /// The body is whole: the file appears.
    pub(crate) fn finish(self) -> Result<WriteFileResponse, Failure> {
        self.staged.settle(self.mode)?;
        let stat = self.files.publish(self.staged, self.request.if_match.as_deref())?;
        Ok(written(&self.request.path, &stat))
    }
}

/// The answer to a body beyond the bound.
pub(crate) fn too_large() -> Failure {
    let mut failure =
        Failure::new(Code::PayloadTooLarge, format!("an upload carries at most {MAX_UPLOAD} bytes"));
    failure.details = serde_json::json!({"limit": MAX_UPLOAD});
    failure
}
