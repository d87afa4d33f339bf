//! Bodies of the file routes, for the document: what they hold is checked against the adapter's own schema.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A change of a file's text.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EditFile {
    /// A UTF-8 file of at most 8 MiB, relative to the workspace.
    #[schema(example = "src/main.py")]
    pub path: String,
    /// What to replace; it must be there exactly once, unless `replace_all`.
    #[schema(min_length = 1, example = "import os")]
    pub old_string: String,
    /// What to put there.
    #[schema(example = "import sys")]
    pub new_string: String,
    /// Every occurrence.
    #[serde(default)]
    pub replace_all: bool,
    /// Refuse (409) unless the file has this etag now.
    pub if_match: Option<String>,
}

/// A changed file.
#[derive(Debug, Serialize, ToSchema)]
pub struct Edited {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: String,
    /// Normalised.
    pub path: String,
    /// How often it was replaced.
    pub replacements: u64,
    /// Bytes in the file now.
    pub size: u64,
    /// Of the new content.
    pub etag: String,
}

/// A directory to make.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Directory {
    /// Relative to the workspace; those above it are made.
    #[schema(example = "data/raw")]
    pub path: String,
}

/// A directory that is there.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeDirectory {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: String,
    /// Normalised.
    pub path: String,
    /// False: it was there already.
    pub created: bool,
}

/// What to move, and where.
#[derive(Debug, Deserialize, ToSchema)]
pub struct MovePath {
    /// A file, a directory, or a symbolic link, which is moved itself.
    #[schema(example = "draft.md")]
    pub from: String,
    /// Its new path, never a directory to put it into.
    #[schema(example = "final/report.md")]
    pub to: String,
    /// Replace a file by a file, or an empty directory by a directory; without it, 409 `already_exists`.
    #[serde(default)]
    pub overwrite: bool,
}

/// Moved.
#[derive(Debug, Serialize, ToSchema)]
pub struct Moved {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: String,
    /// Normalised.
    pub from: String,
    /// Normalised.
    pub to: String,
}

/// What is at a path.
#[derive(Debug, Serialize, ToSchema)]
pub struct PathStat {
    /// The last part of the path; `.` for the workspace itself.
    pub name: String,
    /// Normalised.
    pub path: String,
    /// `file`, `directory`, `symlink` or `other`.
    #[serde(rename = "type")]
    #[schema(example = "file")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// RFC 3339, UTC, milliseconds.
    pub modified_at: Option<String>,
    /// Octal permission bits.
    #[schema(example = "0644")]
    pub mode: String,
    /// As reads and writes give it.
    pub etag: String,
    /// Where a symbolic link points, as it is written in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// The form of an upload.
#[derive(Debug, ToSchema)]
pub struct UploadForm {
    /// Where to, relative to the workspace. Before `file` in the form, or as a query parameter.
    #[schema(example = "data/input.csv")]
    pub path: String,
    /// Permission bits in decimal; only the lowest nine count. Before `file`.
    pub mode: Option<u32>,
    /// Refuse (409) unless the file has this etag now; `*`: unless it exists. Before `file`.
    pub if_match: Option<String>,
    /// The bytes.
    #[schema(value_type = String, format = Binary)]
    pub file: Vec<u8>,
}

/// A written file.
#[derive(Debug, Serialize, ToSchema)]
pub struct Uploaded {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: String,
    /// Normalised.
    pub path: String,
    /// Bytes in the file now.
    pub size: u64,
    /// Of the new content.
    pub etag: String,
}

/// An unpacked archive.
#[derive(Debug, Serialize, ToSchema)]
pub struct Unpacked {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: String,
    /// The directory it was unpacked into.
    pub path: String,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of its files, unpacked.
    pub bytes: u64,
}
