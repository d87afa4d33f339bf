//! What is said of one file: in a listing, and alone.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bay_ship_api::http::{Entry, StatRequest, StatResponse};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::resolve::{self, Parents};
use super::{Files, RelPath, etag, kind, size};
use crate::agent::error::Failure;
use crate::text::rfc3339;

impl Files {
    /// `POST /fs/stat`. A symbolic link at the end is described itself.
    pub(crate) fn stat(&self, request: &StatRequest) -> Result<StatResponse, Failure> {
        let path = RelPath::parse("path", &request.path)?;
        let place = resolve::resolve_link(&self.root, &path, Parents::MustExist)?;
        let stat = place.stat()?.ok_or(Errno::NOENT)?;
        let target = match kind(&stat) {
            FileType::Symlink => {
                Some(resolve::read_link(place.directory(), place.name())?.to_string_lossy().into_owned())
            }
            _ => None,
        };
        Ok(StatResponse { entry: entry(path.text(), &stat), etag: etag(&stat), target })
    }
}

/// What is shown of what is at `path`, which is relative to the workspace.
pub(super) fn entry(path: String, stat: &Stat) -> Entry {
    let kind = match kind(stat) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        _ => "other",
    };
    let name =
        Path::new(&path).file_name().map_or_else(|| path.clone(), |name| name.to_string_lossy().into());
    Entry {
        name,
        kind: kind.to_owned(),
        size: size(stat),
        modified_at: modified(stat).map(rfc3339),
        mode: format!("{:04o}", stat.st_mode & 0o7777),
        path,
    }
}

fn modified(stat: &Stat) -> Option<SystemTime> {
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    let nanos = u32::try_from(stat.st_mtime_nsec).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}
