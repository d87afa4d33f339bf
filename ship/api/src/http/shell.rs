//! Background processes, and what a container says of itself.

use serde::{Deserialize, Serialize};

/// One background process, as `GET /shell/processes` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Names it in the runtime; never used again in one session.
    pub process_id: String,
    /// As Bay gave it in `X-Execution-Id`.
    pub execution_id: Option<String>,
    /// As user code inside sees it.
    pub pid: Option<u32>,
    /// The first KiB of it.
    pub command: String,
    /// How it is or was.
    pub status: ProcessStatus,
    /// From a real wait; null while it runs, when a signal ended it or when its timeout passed.
    pub exit_code: Option<i32>,
    /// Name of the signal that ended it, whoever sent it.
    pub signal: Option<String>,
    /// Its own timeout passed.
    pub timed_out: bool,
    /// RFC 3339, UTC, milliseconds.
    pub started_at: String,
    /// The same; null while it runs.
    pub ended_at: Option<String>,
}

/// How a background process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessStatus {
    /// It has not ended.
    Running,
    /// It exited with 0.
    Completed,
    /// It exited with something else, or a signal from elsewhere ended it.
    Failed,
    /// Ship ended it: a DELETE or its timeout.
    Killed,
}

/// `GET /shell/processes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessList {
    /// In the order of their starts.
    pub processes: Vec<ProcessInfo>,
}

/// `GET /shell/processes/{id}`: the process and a piece of one of its streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessOutput {
    /// As it is now.
    #[serde(flatten)]
    pub process: ProcessInfo,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Where in the whole stream the first byte of `content` lies, in bytes.
    pub offset: u64,
    /// Where to go on.
    pub next_offset: u64,
    /// Bytes between the offset asked for and `offset`, which are kept no longer.
    pub lost: u64,
    /// In `encoding`.
    pub content: String,
    /// `utf-8` (a character is never cut; what is none is replaced) or `base64`.
    pub encoding: String,
    /// The stream has ended and `content` reaches its end.
    pub eof: bool,
}

/// `POST /shell/processes/{id}/stdin`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StdinRequest {
    /// In `encoding`; at most 1 MiB decoded.
    #[serde(default)]
    pub data: String,
    /// `utf-8` (default) or `base64`.
    #[serde(default)]
    pub encoding: Option<String>,
    /// Close it once all of `data` is taken.
    #[serde(default)]
    pub close: bool,
}

/// Answer of `POST /shell/processes/{id}/stdin`. Where not all was taken: 429 `busy` with `details.taken`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StdinResponse {
    /// As asked.
    pub process_id: String,
    /// Bytes that the pipe took.
    pub taken: u64,
    /// Whether it is closed now.
    pub closed: bool,
}

/// `GET /stat`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stat {
    /// Since the agent started.
    pub uptime_ms: u64,
    /// Ship's own part.
    pub agent: AgentStat,
    /// User processes.
    pub processes: ProcessStat,
    /// The file system of `/workspace`; null where it does not answer.
    pub workspace: Option<WorkspaceStat>,
}

/// What the agent itself uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentStat {
    /// Resident memory, KiB.
    pub rss_kb: Option<u64>,
    /// Open descriptors.
    pub fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

/// Shell commands at work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessStat {
    /// In the foreground.
    pub running: u64,
    /// In the background.
    pub background: u64,
}

/// Space of the file system that `/workspace` lies on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkspaceStat {
    /// All of it.
    pub total_bytes: u64,
    /// What user code may still fill.
    pub free_bytes: u64,
}
