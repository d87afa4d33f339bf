//! `terminal`: a WebSocket that goes past this plugin.

use serde::Deserialize;
use serde_json::json;

use crate::answer::Reader;
use crate::bay::plugin::types::Fault;
use crate::describe::{capability as spec, object, operation};
use crate::exports::bay::plugin::adapter::{Action, Call, CapabilitySpec, HttpRequest};
use crate::plan::{Plan, input, request};

/// Most columns or rows: Ship's own bound.
const MAX_SIDE: u16 = 1000;

#[derive(Deserialize)]
struct Terminal {
    cols: u16,
    rows: u16,
    term: String,
}

pub fn capability() -> CapabilitySpec {
    let side = |default: u16, what: &str| {
        json!({ "type": "integer", "minimum": 1, "maximum": MAX_SIDE, "default": default, "description": what })
    };
    let input = object(
        "A terminal to open",
        &[],
        json!({
            "cols": side(80, "Columns."),
            "rows": side(24, "Rows."),
            "term": { "type": "string", "pattern": "^[A-Za-z0-9._+-]{1,64}$", "default": "xterm-256color",
                "description": "The type of terminal, for `TERM`." },
            "terminal_id": { "type": "null", "description": "Reserved: each connection is a terminal of its own." },
        }),
    );
    let output = object(
        "Bytes that went to the caller as they are",
        &["status", "bytes"],
        json!({ "status": { "type": "string" }, "bytes": { "type": "integer", "minimum": 0 } }),
    );
    let ws = operation("ws", "A login shell on a terminal, as a WebSocket.", &["upgrade"], input, output);
    spec("terminal", "Interactive terminals.", vec![ws])
}

/// Plans the one operation.
pub fn plan(call: &Call) -> Result<Plan, Fault> {
    let Terminal { cols, rows, term } = input(call)?;
    let query = vec![
        ("cols".to_owned(), cols.to_string()),
        ("rows".to_owned(), rows.to_string()),
        ("term".to_owned(), term),
    ];
    let request = HttpRequest { query, ..request("GET", &["term", "ws"]) };
    Ok(Plan { action: Action::Forward(request), reader: Reader::Forwarded })
}
