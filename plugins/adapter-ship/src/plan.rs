//! From a call to the request that serves it.

use bay_ship_api::http::{PythonExecRequest, ShellExecRequest};
use serde::{Deserialize, Serialize};

use crate::answer::{Reader, fault};
use crate::bay::plugin::types::Fault;
use crate::exports::bay::plugin::adapter::{Action, Call, HttpRequest, Target};
use crate::{executions, files, processes, terminal};

/// What to do, and how to read what comes of it.
pub struct Plan {
    pub action: Action,
    pub reader: Reader,
}

/// Plans one call.
pub fn plan(call: &Call) -> Result<Plan, Fault> {
    match (call.capability.as_str(), call.operation.as_str()) {
        ("python", "exec") => {
            let mut request: PythonExecRequest = input(call)?;
            request.waiting = executions::waiting(call, request.waiting);
            executions::run(call, post(&["ipython", "exec"], &request, Reader::Python)?)
        }
        ("shell", "exec") => {
            let mut request: ShellExecRequest = input(call)?;
            request.waiting = executions::waiting(call, request.waiting);
            executions::run(call, post(&["shell", "exec"], &request, Reader::Shell)?)
        }
        ("shell", operation) => processes::plan(call, operation),
        ("executions", operation) => executions::plan(call, operation),
        ("filesystem", _) => files::plan::plan(call),
        ("terminal", "ws") => terminal::plan(call),
        _ => Err(unknown(call)),
    }
}

/// An operation that the manifest does not have.
pub fn unknown(call: &Call) -> Fault {
    let name = format!("{}.{}", call.capability, call.operation);
    fault("capability_not_supported", format!("adapter-ship has no operation `{name}`"))
}

/// The host has validated the input; a mismatch here means that schema and code disagree.
pub fn input<'a, T: Deserialize<'a>>(call: &'a Call) -> Result<T, Fault> {
    // Read into a struct, a list would be taken for its fields in their order.
    if !call.input.trim_start().starts_with('{') {
        return Err(fault("validation_error", "the input is not an object"));
    }
    serde_json::from_str(&call.input)
        .map_err(|e| fault("validation_error", format!("the input does not fit this operation: {e}")))
}

pub fn request(method: &str, path: &[&str]) -> HttpRequest {
    HttpRequest {
        target: Target::Runtime,
        method: method.into(),
        path: path.iter().map(|s| (*s).to_owned()).collect(),
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        timeout_ms: None,
    }
}

pub fn post<T: Serialize>(path: &[&str], body: &T, reader: Reader) -> Result<Plan, Fault> {
    let body = serde_json::to_vec(body)
        .map_err(|e| fault("validation_error", format!("the input cannot be passed on: {e}")))?;
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let request = HttpRequest { headers, body: Some(body), ..request("POST", path) };
    Ok(Plan { action: Action::Requests(vec![request]), reader })
}
