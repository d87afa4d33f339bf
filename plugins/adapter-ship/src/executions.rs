//! Executions: how one is run and followed, and what Bay's own routes ask of one that runs or ran.

use bay_ship_api::http::{ShipError, Waiting};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::answer::{Reader, fault, named, nonsense, parse, python, refusal, shell, unanswered};
use crate::bay::plugin::types::Fault;
use crate::describe::{object, operation};
use crate::exports::bay::plugin::adapter::{Action, Call, Event, HttpRequest, OperationSpec};
use crate::plan::{Plan, input, request, unknown};

/// Longest wait that Ship takes, in seconds.
const MAX_WAIT: u64 = 3700;

/// The operations of `executions`. No profile offers them: Bay calls them for an execution it has found.
pub fn describe() -> Vec<OperationSpec> {
    let id = json!({ "type": "string", "pattern": "^exe_[0-9a-z]{26}$", "description": "`exe_…`" });
    let done = || {
        object("Done", &["status"], json!({ "status": { "type": "string" }, "bytes": { "type": "integer" } }))
    };
    vec![
        operation(
            "result",
            "Wait for the end of an execution, and tell what its call was or would have been answered.",
            &["safe"],
            object("An execution", &["execution_id"], json!({ "execution_id": id })),
            json!({ "type": "object" }),
        ),
        operation(
            "output",
            "All that an execution said on one stream.",
            &["safe", "streams"],
            object(
                "A stream of an execution",
                &["execution_id"],
                json!({
                    "execution_id": id,
                    "stream": { "type": "string", "enum": ["stdout", "stderr"], "default": "stdout",
                        "description": "Which." },
                    "offset": { "type": "integer", "minimum": 0, "default": 0, "description": "First byte." },
                }),
            ),
            done(),
        ),
        operation(
            "events",
            "An execution's events, from any one on.",
            &["safe", "streams"],
            object(
                "An execution's events",
                &["execution_id"],
                json!({
                    "execution_id": id,
                    "last_event_id": { "type": "integer", "minimum": 0, "default": 0,
                        "description": "The last one seen." },
                }),
            ),
            json!({ "type": "object" }),
        ),
        operation(
            "cancel",
            "Stop an execution.",
            &["safe"],
            object("An execution", &["execution_id"], json!({ "execution_id": id })),
            done(),
        ),
    ]
}

#[derive(Deserialize)]
struct Wanted {
    execution_id: String,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    last_event_id: u64,
}

/// Plans an operation of `executions`.
pub fn plan(call: &Call, operation: &str) -> Result<Plan, Fault> {
    let wanted: Wanted = input(call)?;
    let id = wanted.execution_id.as_str();
    match operation {
        "result" => Ok(Plan { action: ask(id, seconds(call)), reader: Reader::Record }),
        "output" => {
            let query = vec![
                ("stream".to_owned(), wanted.stream.unwrap_or_else(|| "stdout".to_owned())),
                ("offset".to_owned(), wanted.offset.to_string()),
            ];
            let request = HttpRequest { query, ..request("GET", &["executions", id, "output"]) };
            Ok(Plan { action: Action::Forward(request), reader: Reader::Forwarded })
        }
        "events" => {
            let headers = vec![("last-event-id".to_owned(), wanted.last_event_id.to_string())];
            let request = HttpRequest { headers, ..request("GET", &["executions", id, "events"]) };
            let reader = Reader::Streamed { execution_id: id.to_owned(), seconds: 0 };
            Ok(Plan { action: Action::Forward(request), reader })
        }
        "cancel" => {
            let request = request("POST", &["executions", id, "cancel"]);
            Ok(Plan { action: Action::Requests(vec![request]), reader: Reader::Cancelled })
        }
        _ => Err(unknown(call)),
    }
}

/// Whether the caller wants the events of its own call.
fn streams(call: &Call) -> bool {
    call.context.facts.iter().any(|(name, value)| name == "events" && value == "true")
}

/// How long the caller waits is the host's business; what its going means is the runtime's, where it streams.
pub fn waiting(call: &Call, asked: Waiting) -> Waiting {
    Waiting { wait: None, on_disconnect: asked.on_disconnect.filter(|_| streams(call)) }
}

/// The same plan, with the events sent to the caller where it wants them.
pub fn run(call: &Call, plan: Plan) -> Result<Plan, Fault> {
    let (Some(execution_id), true) = (call.context.execution_id.clone(), streams(call)) else {
        return Ok(plan);
    };
    let Action::Requests(mut requests) = plan.action else {
        return Err(nonsense("an execution is one request"));
    };
    let mut request = requests.pop().ok_or_else(|| nonsense("an execution is one request"))?;
    request.headers.push(("accept".to_owned(), "text/event-stream".to_owned()));
    let reader = Reader::Streamed { execution_id, seconds: seconds(call) };
    Ok(Plan { action: Action::Forward(request), reader })
}

/// A little less than the host waits, so that the answer comes in time.
fn seconds(call: &Call) -> u64 {
    u64::from(call.context.deadline_ms / 1000).saturating_sub(1).clamp(1, MAX_WAIT)
}

fn ask(execution_id: &str, seconds: u64) -> Action {
    let query = vec![("wait".to_owned(), seconds.to_string())];
    Action::Requests(vec![HttpRequest { query, ..request("GET", &["executions", execution_id]) }])
}

/// What is done when the events have ended, for whatever reason: only the runtime knows how the work did.
pub fn after(execution_id: &str, seconds: u64, event: Event) -> Action {
    match event {
        Event::Forwarded(Ok(end)) if end.end == "refused" => {
            Action::Fail(refusal(end.status, &end.refusal.unwrap_or_default()))
        }
        Event::Forwarded(Ok(_)) => ask(execution_id, seconds),
        Event::Forwarded(Err(error)) => Action::Fail(unanswered(error)),
        _ => crate::answer::confused("resumed with an event it did not ask for"),
    }
}

#[derive(Deserialize)]
struct Record<'a> {
    capability: String,
    status: String,
    error: Option<ShipError>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

/// The end of an execution, as its own call is answered.
pub fn record(body: &str) -> Result<String, Fault> {
    let record: Record = parse(body)?;
    match (record.status.as_str(), record.error, record.result) {
        ("running", ..) => {
            let details = json!({ "running": true }).to_string();
            Err(Fault { details, ..fault("timeout", "the execution has not ended yet") })
        }
        (_, Some(error), _) => Err(named(error)),
        (_, None, Some(result)) if record.capability == "python" => python(result.get()),
        (_, None, Some(result)) if record.capability == "shell" => shell(result.get()),
        _ => Err(nonsense("the record of an execution tells no end")),
    }
}
