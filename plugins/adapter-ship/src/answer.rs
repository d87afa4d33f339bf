//! From what came back to a reply or a fault. What the runtime sends is not trusted: whatever does not fit is a
//! `runtime_error`, never a trap.

use std::borrow::Cow;

use bay_ship_api::http::{ErrorBody, PythonErrorDetail, ShipError, StdinResponse};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::bay::plugin::types::Fault;
use crate::exports::bay::plugin::adapter::{Action, Event, ForwardEnd, HttpResponse, RequestError};
use crate::{executions, files, processes};

/// How a response will be read.
pub enum Reader {
    Python,
    Shell,
    /// One of the file operations.
    Files(files::answer::Reader),
    /// An execution's end, asked for after its events have gone to the caller.
    Streamed { execution_id: String, seconds: u64 },
    /// The record of an execution.
    Record,
    /// Bytes went past this plugin, and nothing follows.
    Forwarded,
    /// The list of background processes.
    Processes,
    /// One of them, whole or with a piece of its output.
    Process,
    /// What it took of its input.
    Stdin,
    /// A cancellation that has been taken.
    Cancelled,
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
        (Reader::Forwarded, Event::Forwarded(end)) => forwarded(end),
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

pub fn unanswered(error: RequestError) -> Fault {
    let kind = if error.kind == "timeout" { "timeout" } else { "runtime_error" };
    fault(kind, format!("the runtime gave no answer: {}", error.message))
}

fn reply(reader: Reader, response: &HttpResponse) -> Result<String, Fault> {
    if response.status != 200 {
        return Err(refusal(response.status, &response.body));
    }
    let body = std::str::from_utf8(&response.body).map_err(nonsense)?;
    match reader {
        Reader::Python => python(body),
        Reader::Shell => shell(body),
        Reader::Files(reader) => files::answer::read(reader, body),
        Reader::Record => executions::record(body),
        Reader::Processes => processes::list(body),
        Reader::Process => text(body.len(), &parse::<processes::Piece>(body)?),
        Reader::Stdin => text(256, &parse::<StdinResponse>(body)?),
        Reader::Cancelled => Ok(json!({ "status": "ok" }).to_string()),
        Reader::Forwarded | Reader::Streamed { .. } => Err(nonsense("a stream is not answered like this")),
    }
}

/// What a status other than 200 means.
pub fn refusal(status: u16, body: &[u8]) -> Fault {
    let Ok(ErrorBody { error }) = serde_json::from_slice(body) else {
        return fault("runtime_error", format!("the runtime answered {status} without saying why"));
    };
    named(error)
}

/// What Ship calls an error, in the words of the contract.
pub fn named(error: ShipError) -> Fault {
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
        "runtime_gone" => Err(fault("runtime_error", "the runtime went away while it streamed")),
        // A client that left has nothing more to be told.
        _ => Ok(json!({ "status": "ok", "bytes": end.bytes }).to_string()),
    }
}

/// As Ship's own type, but borrowing, and with what nobody reads here as it is: answers can be megabytes. The shape is
/// the contract's already.
#[derive(Deserialize, Serialize)]
struct Python<'a> {
    success: bool,
    #[serde(borrow)]
    output: &'a RawValue,
    error: Option<String>,
    error_detail: Option<PythonErrorDetail>,
    #[serde(borrow)]
    data: PythonData<'a>,
    execution_time_ms: u64,
    queued_ms: u64,
    kernel_seq: u64,
    truncated: bool,
    code: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct PythonData<'a> {
    execution_count: Option<i64>,
    #[serde(borrow)]
    output: PythonOutput<'a>,
}

#[derive(Deserialize, Serialize)]
struct PythonOutput<'a> {
    #[serde(borrow)]
    text: &'a RawValue,
    #[serde(borrow)]
    images: Vec<&'a RawValue>,
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}

pub fn python(body: &str) -> Result<String, Fault> {
    let answer: Python = parse(body)?;
    for string in [answer.output, answer.data.output.text] {
        if !string.get().starts_with('"') {
            return Err(nonsense("`output` is not a string"));
        }
    }
    text(body.len(), &answer)
}

/// As Ship's own type; the shape is the contract's already.
#[derive(Deserialize, Serialize)]
struct Shell<'a> {
    success: bool,
    #[serde(borrow)]
    output: Cow<'a, str>,
    error: Option<String>,
    #[serde(borrow)]
    stdout: Cow<'a, str>,
    #[serde(borrow)]
    stderr: Cow<'a, str>,
    exit_code: Option<i32>,
    signal: Option<String>,
    truncated: bool,
    execution_time_ms: u64,
    command: Option<String>,
    process_id: String,
}

pub fn shell(body: &str) -> Result<String, Fault> {
    text(body.len(), &parse::<Shell>(body)?)
}

pub fn parse<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Fault> {
    serde_json::from_str(body).map_err(nonsense)
}

pub fn nonsense(why: impl std::fmt::Display) -> Fault {
    fault("runtime_error", format!("the runtime's answer cannot be read: {why}"))
}

/// JSON text, in a buffer of about the right size: doubling one of many megabytes would cost as much again.
pub fn text<T: Serialize>(about: usize, value: &T) -> Result<String, Fault> {
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
