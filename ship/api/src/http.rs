//! Bodies of Ship's HTTP routes. Every non-2xx answer is an [`ErrorBody`].
//!
//! Paths are relative to `/workspace` and already normalised by Bay; Ship checks them again.

mod archive;
mod files;
mod shell;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use archive::*;
pub use files::*;
pub use shell::*;

/// Most bytes of stdout, and of stderr, that an answer carries inline.
pub const MAX_INLINE_OUTPUT: usize = 1 << 20;

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
    /// Seconds, 1..=3600. Not given: 30 in the foreground; in the background it runs until the session ends.
    #[serde(default)]
    pub timeout: Option<u32>,
    /// Working directory beneath `/workspace`.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Environment over the profile's; null: nothing.
    #[serde(default, deserialize_with = "null_as_default")]
    pub env: BTreeMap<String, String>,
    /// Bytes for stdin, after which it is closed. Not given: `/dev/null` in the foreground, in the background a
    /// pipe that `POST /shell/processes/{id}/stdin` writes to.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Answer at once and let it run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// Repeat the command in the answer.
    #[serde(default)]
    pub include_code: bool,
    /// How the answer is waited for.
    #[serde(flatten)]
    pub waiting: Waiting,
}

fn null_as_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// How the answer to an execution is waited for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Seconds after which the answer is 202 [`StillRunning`] and the work goes on; null: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<u32>,
    /// `interrupt` (default where events are streamed) or `continue`: what happens when the caller goes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<String>,
}

/// Answer 202 of an execution that takes longer than the caller waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StillRunning {
    /// To ask for it with.
    pub execution_id: String,
    /// `running`.
    pub status: String,
}

/// Answer of `POST /shell/exec`, in the shape that a client of Bay sees. In the background nothing of its end is
/// known yet: no output, `exit_code` null.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShellExecResponse {
    /// True for exit code 0, and for a background process that was started.
    pub success: bool,
    /// stdout, then stderr.
    pub output: String,
    /// Why it failed, in the words nearest to the cause.
    pub error: Option<String>,
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
    /// There was more output than fits here; the rest is at `/executions/{id}/output`.
    pub truncated: bool,
    /// As Bay named it.
    pub execution_id: String,
    /// From start to end, milliseconds.
    pub execution_time_ms: u64,
    /// As Bay said.
    pub session_seq: Option<u64>,
    /// Where `include_code` asked for it.
    pub command: Option<String>,
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
    /// Run in the kernel with this `kernel_seq` only, else 409 `state_lost`; looked at when the call's turn comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_kernel: Option<u64>,
    /// Repeat the code in the answer.
    #[serde(default)]
    pub include_code: bool,
    /// How the answer is waited for.
    #[serde(flatten)]
    pub waiting: Waiting,
}

/// Answer of `GET /ipython/kernel/status`, and of `restart` and `DELETE` there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelStatus {
    /// `starting`, `ready`, `busy`, `failed` (the next call tries again) or `stopped` (the next call starts one).
    pub state: String,
    /// `ipython` or `python`; null until the first start has shown which.
    pub engine: Option<String>,
    /// Of the kernel that runs or starts; of the next one where none does.
    pub kernel_seq: u64,
    /// Calls that wait.
    pub queued: usize,
    /// Since when the call that runs does: RFC 3339, UTC, milliseconds.
    pub running_since: Option<String>,
    /// How the kernel before this one ended, in words.
    pub last_exit: Option<String>,
    /// Why the last start failed.
    pub reason: Option<String>,
    /// What code of this kernel wrote after its own execution was over.
    pub late_output: LateOutput,
}

/// Text that belongs to no execution: a background thread printed it after the call that started it was answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateOutput {
    /// All of it, in bytes.
    pub bytes: u64,
    /// The end of it, at most 4 KiB.
    pub tail: String,
}

/// Answer of `POST /ipython/exec`, in the shape that a client of Bay sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PythonExecResponse {
    /// False for an exception, a timeout or a kernel that died.
    pub success: bool,
    /// stdout, then the text of results: what a person would see.
    pub output: String,
    /// What went wrong, for a person: the traceback without colours, or why the kernel stopped.
    pub error: Option<String>,
    /// The exception, where there was one.
    pub error_detail: Option<PythonErrorDetail>,
    /// Counter, text and rich output.
    pub data: PythonData,
    /// As Bay named it.
    pub execution_id: String,
    /// From the kernel's start of the code to its end, milliseconds.
    pub execution_time_ms: u64,
    /// Waiting for the kernel, milliseconds.
    pub queued_ms: u64,
    /// As Bay said.
    pub session_seq: Option<u64>,
    /// Grows with each new kernel.
    pub kernel_seq: u64,
    /// The user's own timeout passed.
    pub timed_out: bool,
    /// There was more output than fits here; the rest of the streams is at `/executions/{id}/output`.
    pub truncated: bool,
    /// Where `include_code` asked for it.
    pub code: Option<String>,
}

/// What Python code left behind beside its streams.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PythonData {
    /// IPython's counter; null when the kernel died first.
    pub execution_count: Option<i64>,
    /// What it showed.
    pub output: PythonOutput,
}

/// What Python code showed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PythonOutput {
    /// As the answer's `output`.
    pub text: String,
    /// `[{"image/png": base64}]`.
    pub images: Vec<BTreeMap<String, Value>>,
    /// MIME bundles of execute results and displays.
    pub results: Vec<Value>,
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
