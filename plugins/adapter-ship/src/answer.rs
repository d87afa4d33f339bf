//! From what came back to a reply or a fault. What the runtime sends is not trusted: whatever does not fit is a
//! `runtime_error`, never a trap.

use std::borrow::Cow;

use bay_ship_api::http::{
    Entry, ErrorBody, ListDirResponse, PythonErrorDetail, ShellExecResponse, WriteFileResponse,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::bay::plugin::types::Fault;
use crate::exports::bay::plugin::adapter::{Action, Event, ForwardEnd, HttpResponse, RequestError};

/// How a response will be read.
pub enum Reader {
    Python { code: Option<String> },
    Shell { command: Option<String>, timeout: u32 },
    ReadFile,
    WriteFile,
    DeleteFile,
    ListDir,
    Download,
}

/// Ship's codes that mean to a client what they say; any other becomes `runtime_error`.
const PASSED_ON: &[&str] = &[
    "validation_error",
    "invalid_path",
    "file_not_found",
    "not_found",
    "is_a_directory",
    "not_a_directory",
    "permission_denied",
    "already_exists",
    "conflict",
    "payload_too_large",
    "range_not_satisfiable",
    "storage_full",
    "busy",
    "state_lost",
    "capability_not_supported",
];

/// Longest message of a fault, and longest code, that the contract allows.
const MAX_MESSAGE: usize = 4096;
const MAX_CODE: usize = 100;
/// How much of stderr is repeated as a failed command's `error`: the end says why.
const MAX_ERROR_TAIL: usize = 4096;

/// A fault with no details.
pub fn fault(kind: &str, message: impl Into<String>) -> Fault {
    let mut message = message.into();
    cut(&mut message, MAX_MESSAGE);
    Fault { kind: kind.into(), code: None, message, details: "{}".into() }
}

/// The host called in an order that the contract does not know.
pub fn confused(what: &str) -> Action {
    Action::Fail(fault("runtime_error", format!("adapter-ship was {what}")))
}

/// Reads an event.
pub fn read(reader: Reader, event: Event) -> Action {
    let done = match (reader, event) {
        (Reader::Download, Event::Forwarded(end)) => forwarded(end),
        (reader, Event::Responses(mut responses)) if responses.len() == 1 => match responses.remove(0) {
            Ok(response) => reply(reader, &response),
            Err(error) => Err(unanswered(error)),
        },
        _ => return confused("resumed with an event it did not ask for"),
    };
    match done {
        Ok(json) => Action::Reply(json),
        Err(fault) => Action::Fail(fault),
    }
}

fn unanswered(error: RequestError) -> Fault {
    let kind = if error.kind == "timeout" { "timeout" } else { "runtime_error" };
    fault(kind, format!("the runtime gave no answer: {}", error.message))
}

fn reply(reader: Reader, response: &HttpResponse) -> Result<String, Fault> {
    if response.status != 200 {
        return Err(refusal(response.status, &response.body));
    }
    let body = std::str::from_utf8(&response.body).map_err(nonsense)?;
    match reader {
        Reader::Python { code } => python(body, code),
        Reader::Shell { command, timeout } => shell(body, command, timeout),
        Reader::ReadFile => read_file(body),
        Reader::WriteFile => text(256, &parse::<WriteFileResponse>(body)?),
        Reader::DeleteFile => text(64, &parse::<Status>(body)?),
        Reader::ListDir => list_dir(body),
        Reader::Download => Err(nonsense("a download is not answered like this")),
    }
}

/// What a status other than 200 means.
fn refusal(status: u16, body: &[u8]) -> Fault {
    let Ok(ErrorBody { error }) = serde_json::from_slice(body) else {
        return fault("runtime_error", format!("the runtime answered {status} without saying why"));
    };
    let passed_on = PASSED_ON.contains(&error.code.as_str());
    let mut out = fault(if passed_on { error.code.as_str() } else { "runtime_error" }, error.message);
    if error.details.is_object() {
        out.details = error.details.to_string();
    }
    if !passed_on {
        let mut code = error.code;
        cut(&mut code, MAX_CODE);
        out.code = Some(code);
    }
    out
}

fn forwarded(end: Result<ForwardEnd, RequestError>) -> Result<String, Fault> {
    let end = end.map_err(unanswered)?;
    match end.end.as_str() {
        "refused" => Err(refusal(end.status, &end.refusal.unwrap_or_default())),
        "runtime_gone" => Err(fault("runtime_error", "the runtime went away during the download")),
        // A client that left has nothing more to be told.
        _ => Ok(json!({ "status": "ok", "bytes": end.bytes }).to_string()),
    }
}

/// As Ship's own type, but borrowing: answers can be megabytes.
#[derive(Deserialize)]
struct Python<'a> {
    success: bool,
    execution_count: Option<i64>,
    #[serde(borrow)]
    output: Cow<'a, str>,
    error: Option<String>,
    error_detail: Option<PythonErrorDetail>,
    #[serde(borrow)]
    images: Vec<&'a RawValue>,
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
    kernel_seq: u64,
    truncated: bool,
    execution_time_ms: u64,
    queued_ms: u64,
}

#[derive(Serialize)]
struct PythonReply<'a> {
    success: bool,
    output: &'a str,
    error: Option<String>,
    error_detail: Option<PythonErrorDetail>,
    data: PythonData<'a>,
    execution_time_ms: u64,
    queued_ms: u64,
    kernel_seq: u64,
    truncated: bool,
    code: Option<String>,
}

#[derive(Serialize)]
struct PythonData<'a> {
    execution_count: Option<i64>,
    output: PythonOutput<'a>,
}

#[derive(Serialize)]
struct PythonOutput<'a> {
    text: &'a str,
    images: Vec<&'a RawValue>,
    results: Vec<&'a RawValue>,
}

fn python(body: &str, code: Option<String>) -> Result<String, Fault> {
    let p: Python = parse(body)?;
    let output = PythonOutput { text: &p.output, images: p.images, results: p.results };
    let reply = PythonReply {
        success: p.success,
        output: &p.output,
        error: p.error,
        error_detail: p.error_detail,
        data: PythonData { execution_count: p.execution_count, output },
        execution_time_ms: p.execution_time_ms,
        queued_ms: p.queued_ms,
        kernel_seq: p.kernel_seq,
        truncated: p.truncated,
        code,
    };
    text(body.len() + p.output.len(), &reply)
}

#[derive(Serialize)]
struct ShellReply {
    success: bool,
    output: String,
    error: Option<String>,
    stdout: String,
    stderr: String,
    exit_code: Option<i32>,
    signal: Option<String>,
    truncated: bool,
    execution_time_ms: u64,
    command: Option<String>,
    process_id: String,
}

fn shell(body: &str, command: Option<String>, timeout: u32) -> Result<String, Fault> {
    let s: ShellExecResponse = parse(body)?;
    let error = shell_error(&s, timeout);
    let reply = ShellReply {
        success: s.success,
        output: format!("{}{}", s.stdout, s.stderr),
        error,
        stdout: s.stdout,
        stderr: s.stderr,
        exit_code: s.exit_code,
        signal: s.signal,
        truncated: s.truncated,
        execution_time_ms: s.execution_time_ms,
        command,
        process_id: s.process_id,
    };
    text(body.len() * 2, &reply)
}

/// Why a command failed, in the words nearest to the cause.
fn shell_error(s: &ShellExecResponse, timeout: u32) -> Option<String> {
    if s.success {
        return None;
    }
    if s.timed_out {
        return Some(format!("timed out after {timeout} s; the process group was ended"));
    }
    if let Some(signal) = &s.signal {
        return Some(format!("ended by {signal}"));
    }
    let stderr = s.stderr.trim();
    if !stderr.is_empty() {
        let from = stderr.len().saturating_sub(MAX_ERROR_TAIL);
        let from = (from..stderr.len()).find(|&i| stderr.is_char_boundary(i)).unwrap_or(0);
        return Some(stderr[from..].to_owned());
    }
    Some(match s.exit_code {
        Some(code) => format!("exit code {code}"),
        None => "the command did not end by itself".into(),
    })
}

/// As Ship's own type, but with the content as it is: a file can be 8 MiB, and to decode it only to encode it again
/// takes a large part of a second.
#[derive(Deserialize, Serialize)]
struct ReadFile<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
    path: String,
    size: u64,
    encoding: String,
    etag: String,
}

fn read_file(body: &str) -> Result<String, Fault> {
    let file: ReadFile = parse(body)?;
    if !file.content.get().starts_with('"') {
        return Err(nonsense("`content` is not a string"));
    }
    text(body.len(), &file)
}

#[derive(Deserialize, Serialize)]
struct Status {
    status: String,
}

/// Ship says `other` for sockets and the like, which the contract does not list: they are left out.
fn list_dir(body: &str) -> Result<String, Fault> {
    let mut list: ListDirResponse = parse(body)?;
    let known = |e: &Entry| matches!(e.kind.as_str(), "file" | "directory" | "symlink");
    list.entries.retain(known);
    text(body.len(), &list)
}

fn parse<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Fault> {
    serde_json::from_str(body).map_err(nonsense)
}

fn nonsense(why: impl std::fmt::Display) -> Fault {
    fault("runtime_error", format!("the runtime's answer cannot be read: {why}"))
}

/// JSON text, in a buffer of about the right size: doubling one of many megabytes would cost as much again.
fn text<T: Serialize>(about: usize, value: &T) -> Result<String, Fault> {
    let mut out = Vec::with_capacity(about + 512);
    serde_json::to_writer(&mut out, value).map_err(nonsense)?;
    String::from_utf8(out).map_err(nonsense)
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
    }
}
