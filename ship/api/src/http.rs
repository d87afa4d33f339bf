//! Bodies of Ship's HTTP routes. Every non-2xx answer is an [`ErrorBody`].
//!
//! Paths are relative to `/workspace` and already normalised by Bay; Ship checks them again.

mod archive;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use archive::*;

/// Most bytes of stdout, and of stderr, that an answer carries inline.
pub const MAX_INLINE_OUTPUT: usize = 1 << 20;
/// The largest file that `read_file` and `write_file` carry.
pub const MAX_FILE: u64 = 8 << 20;

/// An error answer: `{"error": {...}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error itself.
    pub error: ShipError,
}

/// An error: `code` is one of the codes of the REST contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShipError {
    /// `validation_error`, `invalid_path`, `file_not_found`, `is_a_directory`, `not_a_directory`,
    /// `permission_denied`, `already_exists`, `conflict`, `payload_too_large`, `storage_full`, `busy`,
    /// `capability_not_supported`, `not_found`, `runtime_error`.
    pub code: String,
    /// For a person: what happened and what to do.
    pub message: String,
    /// More, for a program.
    #[serde(default)]
    pub details: Value,
}

/// `GET /health`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// `healthy`.
    pub status: String,
}

/// `GET /meta`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meta {
    /// What answers.
    pub runtime: RuntimeMeta,
    /// Where the locker is mounted.
    pub workspace: WorkspaceMeta,
    /// `two_uid` or `nested_pid`.
    pub isolation: String,
    /// Capability name → `{operations: [...], endpoints: {...}, ...}`.
    pub capabilities: BTreeMap<String, Value>,
}

/// Name and versions of a runtime.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuntimeMeta {
    /// `ship`.
    pub name: String,
    /// Version of the binary.
    pub version: String,
    /// `v1`.
    pub api_version: String,
    /// Commit or build, where known.
    pub build: Option<String>,
}

/// Where the locker is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkspaceMeta {
    /// `/workspace`.
    pub mount_path: String,
}

/// `POST /shell/exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShellExecRequest {
    /// Given to `/bin/bash -c` (or `/bin/sh -c` where there is no bash): no login, no rc files.
    pub command: String,
    /// Seconds, 1..=3600.
    pub timeout: u32,
    /// Working directory beneath `/workspace`.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Environment over the profile's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Bytes for stdin, which is `/dev/null` otherwise.
    #[serde(default)]
    pub stdin: Option<String>,
}

/// Answer of `POST /shell/exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShellExecResponse {
    /// True for exit code 0.
    pub success: bool,
    /// Up to [`MAX_INLINE_OUTPUT`] bytes; what is not UTF-8 is replaced.
    pub stdout: String,
    /// As `stdout`.
    pub stderr: String,
    /// From a real wait; null when a signal ended it or it timed out.
    pub exit_code: Option<i32>,
    /// Name of the signal that ended it, for instance `SIGKILL`.
    pub signal: Option<String>,
    /// The user's own timeout passed and the process group was ended.
    pub timed_out: bool,
    /// Output beyond the bound was dropped.
    pub truncated: bool,
    /// From start to end, milliseconds.
    pub execution_time_ms: u64,
    /// Names the process in the runtime.
    pub process_id: String,
}

/// `POST /ipython/exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PythonExecRequest {
    /// The code.
    pub code: String,
    /// Seconds, 1..=3600, counted from when the code starts.
    pub timeout: u32,
}

/// Answer of `POST /ipython/exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PythonExecResponse {
    /// False for an exception, a timeout or a kernel that died.
    pub success: bool,
    /// IPython's counter; null when the kernel died first.
    pub execution_count: Option<i64>,
    /// stdout, then the text of results: what a person would see.
    pub output: String,
    /// What went wrong, for a person: the traceback without colours, or why the kernel stopped.
    pub error: Option<String>,
    /// The exception, where there was one.
    pub error_detail: Option<PythonErrorDetail>,
    /// `[{"image/png": base64}]`.
    pub images: Vec<BTreeMap<String, Value>>,
    /// MIME bundles of execute results and displays.
    pub results: Vec<Value>,
    /// Grows with each new kernel.
    pub kernel_seq: u64,
    /// The user's own timeout passed.
    pub timed_out: bool,
    /// Output beyond the bound was dropped.
    pub truncated: bool,
    /// From the kernel's start of the code to its end, milliseconds.
    pub execution_time_ms: u64,
    /// Waiting for the kernel, milliseconds.
    pub queued_ms: u64,
}

/// A Python exception.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PythonErrorDetail {
    /// Class name.
    pub name: String,
    /// `str(exception)`.
    pub value: String,
    /// Lines without colours.
    pub traceback: Vec<String>,
}

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

/// `POST /fs/write_file`.
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

/// Answer of `POST /fs/write_file`.
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
    /// There is more than this page.
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
