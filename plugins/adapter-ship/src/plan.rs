//! From a call to the request that serves it.

use std::collections::BTreeMap;

use bay_ship_api::http::{
    DeleteFileRequest, ListDirRequest, PythonExecRequest, ReadFileRequest, ShellExecRequest,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::{Reader, fault};
use crate::bay::plugin::types::Fault;
use crate::exports::bay::plugin::adapter::{Action, Call, HttpRequest, Target};

/// What to do, and how to read what comes of it.
pub struct Plan {
    pub action: Action,
    pub reader: Reader,
}

#[derive(Deserialize)]
struct PythonInput {
    code: String,
    timeout: u32,
    #[serde(default)]
    include_code: bool,
}

#[derive(Deserialize)]
struct ShellInput {
    command: String,
    timeout: u32,
    cwd: Option<String>,
    env: Option<BTreeMap<String, String>>,
    stdin: Option<String>,
    #[serde(default)]
    include_code: bool,
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
            let PythonInput { code, timeout, include_code } = input(call)?;
            let reader = Reader::Python { code: include_code.then(|| code.clone()) };
            post(&["ipython", "exec"], &PythonExecRequest { code, timeout }, reader)
        }
        ("shell", "exec") => {
            let ShellInput { command, timeout, cwd, env, stdin, include_code } = input(call)?;
            let reader = Reader::Shell { command: include_code.then(|| command.clone()), timeout };
            let request = ShellExecRequest {
                command,
                timeout: Some(timeout),
                cwd,
                env: env.unwrap_or_default(),
                stdin,
                background: false,
            };
            post(&["shell", "exec"], &request, reader)
        }
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
fn input<'a, T: Deserialize<'a>>(call: &'a Call) -> Result<T, Fault> {
    serde_json::from_str(&call.input)
        .map_err(|e| fault("validation_error", format!("the input does not fit this operation: {e}")))
}

fn request(method: &str, path: &[&str]) -> HttpRequest {
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

fn post<T: Serialize>(path: &[&str], body: &T, reader: Reader) -> Result<Plan, Fault> {
    let body = serde_json::to_vec(body)
        .map_err(|e| fault("validation_error", format!("the input cannot be passed on: {e}")))?;
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let request = HttpRequest { headers, body: Some(body), ..request("POST", path) };
    Ok(Plan { action: Action::Requests(vec![request]), reader })
}
