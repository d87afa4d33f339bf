//! Background processes of `shell`.

use bay_ship_api::http::{ProcessInfo, ProcessList, ProcessStatus, StdinRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::{Reader, parse, text};
use crate::bay::plugin::types::Fault;
use crate::describe::{object, operation};
use crate::exports::bay::plugin::adapter::{Action, Call, HttpRequest, OperationSpec};
use crate::plan::{Plan, input, post, request, unknown};

/// A process as a client sees it.
#[derive(Deserialize, Serialize)]
pub struct Process {
    process_id: String,
    execution_id: Option<String>,
    pid: Option<u32>,
    command: String,
    status: ProcessStatus,
    exit_code: Option<i32>,
    signal: Option<String>,
    started_at: String,
    ended_at: Option<String>,
}

/// The same with a piece of one of its streams, where that was asked for.
#[derive(Deserialize, Serialize)]
pub struct Piece {
    #[serde(flatten)]
    process: Process,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eof: Option<bool>,
}

fn process_properties() -> Value {
    json!({
        "process_id": { "type": "string" },
        "execution_id": { "type": ["string", "null"] },
        "pid": { "type": ["integer", "null"], "description": "As code inside sees it." },
        "command": { "type": "string", "description": "Its beginning." },
        "status": { "type": "string", "description": "`running`, `completed`, `failed` or `killed`." },
        "exit_code": { "type": ["integer", "null"] },
        "signal": { "type": ["string", "null"] },
        "started_at": { "type": "string", "format": "date-time" },
        "ended_at": { "type": ["string", "null"], "format": "date-time" },
    })
}

fn process_id() -> Value {
    json!({ "type": "string", "pattern": "^[A-Za-z0-9_]{1,64}$", "description": "Of the call that started it." })
}

/// The operations of `shell` on what runs in the background.
pub fn describe() -> Vec<OperationSpec> {
    let process = || object("A background process", &["process_id", "status"], process_properties());
    let mut piece = process();
    for (name, kind, words) in [
        ("stream", "string", "`stdout` or `stderr`."),
        ("offset", "integer", "Where `content` begins in the whole stream, in bytes."),
        ("next_offset", "integer", "Where to go on."),
        ("lost", "integer", "Bytes before `offset` that are kept no longer."),
        ("content", "string", "In `encoding`."),
        ("encoding", "string", "`utf-8` or `base64`."),
        ("eof", "boolean", "The stream has ended, and this is its end."),
    ] {
        piece["properties"][name] = json!({ "type": kind, "description": words });
    }
    vec![
        operation(
            "processes",
            "List background processes.",
            &["safe"],
            object("Nothing", &[], json!({})),
            object(
                "Background processes, in the order of their starts",
                &["processes"],
                json!({ "processes": { "type": "array", "items": process() } }),
            ),
        ),
        operation(
            "process_output",
            "Read a piece of a background process's output.",
            &["safe"],
            reading(),
            piece,
        ),
        operation(
            "process_stdin",
            "Write to a background process.",
            &[],
            object(
                "Input for a background process",
                &["process_id"],
                json!({
                    "process_id": process_id(),
                    "data": { "type": "string", "default": "", "description": "In `encoding`." },
                    "encoding": { "type": "string", "enum": ["utf-8", "base64"], "default": "utf-8" },
                    "close": { "type": "boolean", "default": false, "description": "Close it after that." },
                }),
            ),
            object(
                "What it took",
                &["process_id", "taken", "closed"],
                json!({
                    "process_id": { "type": "string" },
                    "taken": { "type": "integer", "minimum": 0, "description": "Bytes." },
                    "closed": { "type": "boolean" },
                }),
            ),
        ),
        operation(
            "process_kill",
            "End a background process and all it started.",
            &["safe"],
            object("A background process", &["process_id"], json!({ "process_id": process_id() })),
            process(),
        ),
    ]
}

fn reading() -> Value {
    object(
        "A piece of output",
        &["process_id"],
        json!({
            "process_id": process_id(),
            "stream": { "type": "string", "enum": ["stdout", "stderr"], "default": "stdout" },
            "offset": { "type": "integer", "minimum": 0, "default": 0, "description": "First byte." },
            "limit": { "type": ["integer", "null"], "minimum": 4, "maximum": 262_144, "default": null,
                "description": "Most bytes." },
            "encoding": { "type": "string", "enum": ["utf-8", "base64"], "default": "utf-8",
                "description": "`utf-8` never cuts a character, and replaces what is none." },
            "wait": { "type": "integer", "minimum": 0, "maximum": 30, "default": 0,
                "description": "Seconds to wait for something to read." },
        }),
    )
}

#[derive(Deserialize)]
struct Wanted {
    process_id: String,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    limit: Option<u64>,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    wait: u64,
}

/// Plans an operation on background processes.
pub fn plan(call: &Call, operation: &str) -> Result<Plan, Fault> {
    let one = |request| Action::Requests(vec![request]);
    if operation == "processes" {
        let action = one(request("GET", &["shell", "processes"]));
        return Ok(Plan { action, reader: Reader::Processes });
    }
    let wanted: Wanted = input(call)?;
    let id = wanted.process_id.as_str();
    match operation {
        "process_output" => {
            let mut query = vec![
                ("stream".to_owned(), wanted.stream.unwrap_or_else(|| "stdout".to_owned())),
                ("offset".to_owned(), wanted.offset.to_string()),
                ("wait".to_owned(), wanted.wait.to_string()),
                ("encoding".to_owned(), wanted.encoding.unwrap_or_else(|| "utf-8".to_owned())),
            ];
            query.extend(wanted.limit.map(|limit| ("limit".to_owned(), limit.to_string())));
            let action = one(HttpRequest { query, ..request("GET", &["shell", "processes", id]) });
            Ok(Plan { action, reader: Reader::Process })
        }
        "process_stdin" => {
            post(&["shell", "processes", id, "stdin"], &input::<StdinRequest>(call)?, Reader::Stdin)
        }
        "process_kill" => {
            let action = one(request("DELETE", &["shell", "processes", id]));
            Ok(Plan { action, reader: Reader::Process })
        }
        _ => Err(unknown(call)),
    }
}

/// The list, with what a client sees of each.
pub fn list(body: &str) -> Result<String, Fault> {
    let shown = |p: ProcessInfo| Process {
        process_id: p.process_id,
        execution_id: p.execution_id,
        pid: p.pid,
        command: p.command,
        status: p.status,
        exit_code: p.exit_code,
        signal: p.signal,
        started_at: p.started_at,
        ended_at: p.ended_at,
    };
    let processes: Vec<_> = parse::<ProcessList>(body)?.processes.into_iter().map(shown).collect();
    text(body.len(), &json!({ "processes": processes }))
}
