//! Bodies of the file routes.

use serde::{Deserialize, Serialize};

/// The largest file that `read_file`, `write_file` and `edit_file` carry, bytes.
pub const MAX_FILE: u64 = 8 << 20;
/// The largest file that `upload` takes, bytes.
pub const MAX_UPLOAD: u64 = 1 << 30;

/// `POST /fs/read_file`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadFileRequest {
    /// Relative path.
    pub path: String,
    /// `utf-8` (default) or `base64`.
    #[serde(default)]
    pub encoding: Option<String>,
    /// First line, from 1.
    #[serde(default)]
    pub offset: Option<u64>,
    /// Number of lines.
    #[serde(default)]
    pub limit: Option<u64>,
}

/// Answer of `POST /fs/read_file`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadFileResponse {
    /// In `encoding`.
    pub content: String,
    /// As asked.
    pub path: String,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// `utf-8` or `base64`.
    pub encoding: String,
    /// Changes with the content.
    pub etag: String,
}

/// `POST /fs/write_file`, and `POST /fs/create_file`, which takes no `append`, `expected_size` and `if_match`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriteFileRequest {
    /// Relative path; parents are made.
    pub path: String,
    /// In `encoding`.
    pub content: String,
    /// `utf-8` (default) or `base64`.
    #[serde(default)]
    pub encoding: Option<String>,
    /// Permission bits, masked with 0777.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Append to what is there.
    #[serde(default)]
    pub append: bool,
    /// With `append`: refuse unless the file has this size now.
    #[serde(default)]
    pub expected_size: Option<u64>,
    /// Refuse unless the file has this etag now; `*`: unless it exists.
    #[serde(default)]
    pub if_match: Option<String>,
}

/// Answer of `POST /fs/write_file`, `/fs/create_file` and `/fs/upload`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriteFileResponse {
    /// `ok`.
    pub status: String,
    /// As asked.
    pub path: String,
    /// Bytes in the file now.
    pub size: u64,
    /// Of the new content.
    pub etag: String,
}

/// `POST /fs/delete_file`; answered with `{"status": "ok"}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteFileRequest {
    /// Relative path; directories go recursively, `.` is refused.
    pub path: String,
}

/// `POST /fs/list_dir`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListDirRequest {
    /// Relative path.
    pub path: String,
    /// Into subdirectories.
    #[serde(default)]
    pub recursive: bool,
    /// Names that start with a dot, too.
    #[serde(default)]
    pub hidden: bool,
    /// Most entries, 1..=1000.
    #[serde(default)]
    pub limit: Option<u32>,
    /// From the page before.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// Answer of `POST /fs/list_dir`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListDirResponse {
    /// Directories first, then by name.
    pub entries: Vec<Entry>,
    /// There is more than this page. Without a `next_cursor`: more than a walk within its bounds can show (too many
    /// entries for its time, or directories nested too deep).
    pub truncated: bool,
    /// For the next page.
    pub next_cursor: Option<String>,
}

/// One entry of a directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Last part of the path.
    pub name: String,
    /// Relative to `/workspace`.
    pub path: String,
    /// `file`, `directory`, `symlink` or `other`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// RFC 3339, UTC, milliseconds.
    pub modified_at: Option<String>,
    /// Octal permission bits, for instance `0644`.
    pub mode: String,
}

/// `POST /fs/edit_file`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EditFileRequest {
    /// Relative path of a UTF-8 file of at most [`MAX_FILE`] bytes.
    pub path: String,
    /// What to replace; not empty. Without `replace_all` it must be there exactly once.
    pub old_string: String,
    /// What to put there.
    pub new_string: String,
    /// Every occurrence, from left to right.
    #[serde(default)]
    pub replace_all: bool,
    /// Refuse unless the file has this etag now.
    #[serde(default)]
    pub if_match: Option<String>,
}

/// Answer of `POST /fs/edit_file`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EditFileResponse {
    /// `ok`.
    pub status: String,
    /// As asked.
    pub path: String,
    /// How often it was replaced.
    pub replacements: u64,
    /// Bytes in the file now.
    pub size: u64,
    /// Of the new content.
    pub etag: String,
}

/// `POST /fs/make_dir`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MakeDirRequest {
    /// Relative path; parents are made.
    pub path: String,
}

/// Answer of `POST /fs/make_dir`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MakeDirResponse {
    /// `ok`.
    pub status: String,
    /// As asked.
    pub path: String,
    /// False: it was there already.
    pub created: bool,
}

/// `POST /fs/move`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveRequest {
    /// Relative path of a file, a directory, or a symbolic link, which is moved itself.
    pub from: String,
    /// Its new path (never a directory to put it into); parents are made.
    pub to: String,
    /// Replace a file by a file, or an empty directory by a directory.
    #[serde(default)]
    pub overwrite: bool,
}

/// Answer of `POST /fs/move`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveResponse {
    /// `ok`.
    pub status: String,
    /// As asked.
    pub from: String,
    /// As asked.
    pub to: String,
}

/// `POST /fs/stat`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatRequest {
    /// Relative path; a symbolic link at its end is not followed.
    pub path: String,
}

/// Answer of `POST /fs/stat`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatResponse {
    /// What a listing would show; `name` and `path` are `.` for the workspace itself.
    #[serde(flatten)]
    pub entry: Entry,
    /// As reads and writes give it.
    pub etag: String,
    /// Where a symbolic link points, as it is written in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}
