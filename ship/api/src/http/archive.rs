//! `POST /fs/archive` and `GET /fs/watch`.

use serde::{Deserialize, Serialize};

/// Most bytes of an archive as it is sent.
pub const MAX_ARCHIVE: u64 = 1 << 30;

/// Answer of `POST /fs/archive?path`; the request's body is the archive itself, tar or tar.gz.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchiveResponse {
    /// `ok`.
    pub status: String,
    /// The directory it was unpacked into, relative to `/workspace`.
    pub path: String,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of its files, unpacked.
    pub bytes: u64,
}

/// The data of an event of `GET /fs/watch?path&recursive`. The event's name says what happened: `created`,
/// `modified`, `removed`, `moved`. An `overflow`, after which anything may have happened, has no data but `{}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// Relative to `/workspace`.
    pub path: String,
    /// `file`, `directory`, `symlink` or `other`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of `moved`: the path before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}
