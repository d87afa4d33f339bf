//! From a call to the request that serves it.

use bay_ship_api::http::{
    DeleteFileRequest, ListDirRequest, PythonExecRequest, ReadFileRequest, ShellExecRequest,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::{Reader, fault};
use crate::bay::plugin::types::Fault;
use crate::{executions, processes};
use crate::exports::bay::plugin::adapter::{Action, Call, HttpRequest, Target};

/// What to do, and how to read what comes of it.
pub struct Plan {
    pub action: Action,
    pub reader: Reader,
}

/// As Ship's own type, but with the content as it is: it can be 8 MiB, which need not be decoded here.
#[derive(Deserialize, Serialize)]
struct WriteFile<'a> {
    path: String,
    #[serde(borrow)]
    content: &'a RawValue,
    encoding: Option<String>,
    mode: Option<u32>,
    #[serde(default)]
    append: bool,
    expected_size: Option<u64>,
    if_match: Option<String>,
}

#[derive(Deserialize)]
struct PathInput {
    path: String,
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
        ("filesystem", "read_file") => {
            post(&["fs", "read_file"], &input::<ReadFileRequest>(call)?, Reader::ReadFile)
        }
        ("filesystem", "write_file") => {
            post(&["fs", "write_file"], &input::<WriteFile>(call)?, Reader::WriteFile)
        }
        ("filesystem", "delete_file") => {
            post(&["fs", "delete_file"], &input::<DeleteFileRequest>(call)?, Reader::DeleteFile)
        }
        ("filesystem", "list_dir") => {
            let mut request: ListDirRequest = input(call)?;
            if request.path.is_empty() {
                request.path = ".".into();
            }
            post(&["fs", "list_dir"], &request, Reader::ListDir)
        }
        ("filesystem", "download") => {
            let PathInput { path } = input(call)?;
            let query = vec![("path".to_owned(), path)];
            let request = HttpRequest { query, ..request("GET", &["fs", "download"]) };
            Ok(Plan { action: Action::Forward(request), reader: Reader::Download })
        }
        (capability, operation) => Err(fault(
            "capability_not_supported",
            format!("adapter-ship has no operation `{capability}.{operation}`"),
        )),
    }
}

/// The host has validated the input; a mismatch here means that schema and code disagree.
pub fn input<'a, T: Deserialize<'a>>(call: &'a Call) -> Result<T, Fault> {
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
