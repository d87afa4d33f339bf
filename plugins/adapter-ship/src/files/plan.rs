//! From a call on files to the request that serves it.

use bay_ship_api::http::{
    DeleteFileRequest, EditFileRequest, ListDirRequest, MakeDirRequest, MoveRequest, ReadFileRequest,
    StatRequest,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::Reader as Answered;
use crate::answer::Reader;
use crate::bay::plugin::types::Fault;
use crate::exports::bay::plugin::adapter::{Action, Call, HttpRequest};
use crate::plan::{Plan, input, post, request, unknown};

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
struct Upload {
    path: String,
    mode: Option<u32>,
    if_match: Option<String>,
}

#[derive(Deserialize)]
struct Watch {
    #[serde(flatten)]
    target: Target,
    recursive: bool,
}

#[derive(Deserialize)]
struct Target {
    path: String,
}

/// Plans one call.
pub fn plan(call: &Call) -> Result<Plan, Fault> {
    let asks = |path: &str| -> [String; 2] { ["fs".to_owned(), path.to_owned()] };
    match call.operation.as_str() {
        "read_file" => ask(asks("read_file"), &input::<ReadFileRequest>(call)?, Answered::Read),
        "write_file" => ask(asks("write_file"), &input::<WriteFile>(call)?, Answered::Write),
        "edit_file" => ask(asks("edit_file"), &input::<EditFileRequest>(call)?, Answered::Edit),
        "delete_file" => ask(asks("delete_file"), &input::<DeleteFileRequest>(call)?, Answered::Delete),
        "make_dir" => ask(asks("make_dir"), &input::<MakeDirRequest>(call)?, Answered::MakeDir),
        "move" => ask(asks("move"), &input::<MoveRequest>(call)?, Answered::Move),
        "stat" => ask(asks("stat"), &input::<StatRequest>(call)?, Answered::Stat),
        "list_dir" => {
            let mut wanted: ListDirRequest = input(call)?;
            if wanted.path.is_empty() {
                wanted.path = ".".into();
            }
            ask(asks("list_dir"), &wanted, Answered::List)
        }
        "download" => Ok(stream("GET", "download", path(call)?, Vec::new())),
        "archive" => Ok(stream("POST", "archive", path(call)?, Vec::new())),
        "watch" => {
            let Watch { target, recursive } = input(call)?;
            let mut query = query(target);
            query.push(("recursive".to_owned(), recursive.to_string()));
            Ok(stream("GET", "watch", query, Vec::new()))
        }
        "upload" => {
            let Upload { path, mode, if_match } = input(call)?;
            let mut query = query(Target { path });
            query.extend(mode.map(|mode| ("mode".to_owned(), mode.to_string())));
            query.extend(if_match.map(|etag| ("if_match".to_owned(), etag)));
            let headers = vec![("content-type".to_owned(), "application/octet-stream".to_owned())];
            Ok(stream("POST", "upload", query, headers))
        }
        _ => Err(unknown(call)),
    }
}

fn ask<T: Serialize>(path: [String; 2], body: &T, reader: Answered) -> Result<Plan, Fault> {
    post(&[&path[0], &path[1]], body, Reader::Files(reader))
}

fn path(call: &Call) -> Result<Vec<(String, String)>, Fault> {
    Ok(query(input(call)?))
}

fn query(Target { path }: Target) -> Vec<(String, String)> {
    vec![("path".to_owned(), path)]
}

/// The caller's body there, the runtime's back, past this plugin.
fn stream(
    method: &str,
    path: &str,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
) -> Plan {
    let request = HttpRequest { query, headers, ..request(method, &["fs", path]) };
    Plan { action: Action::Forward(request), reader: Reader::Forwarded }
}
