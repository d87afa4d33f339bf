//! Requests: queries, ranges, routes, paths, JSON bodies. Bay sends them, but what is in them is a client's.

use bay_ship::fuzz;
use bay_ship_api::http::{
    DeleteFileRequest, ListDirRequest, PythonExecRequest, ReadFileRequest, ShellExecRequest, WriteFileRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{halves, texts};

pub(crate) fn query_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "path=a%20b+c&n=7&yes=true&path=second\npath",
        "a=%ff\na",
        "%=&&=x\n",
        "n=18446744073709551616\nn",
    ])
}

/// Any query is read or refused, and what was percent-encoded comes out as it was.
pub(crate) fn query(bytes: &[u8]) {
    let (text, name) = halves(bytes);
    let _ = fuzz::query(&text, &name);
    let encoded: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
    let read = fuzz::query(&format!("a={encoded}"), "a");
    assert_eq!(read, std::str::from_utf8(bytes).ok().map(|text| Some(text.to_owned())));
}

pub(crate) fn range_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "bytes=0-3\n10",
        "bytes=4-\n10",
        "bytes=-3\n10",
        "bytes=0-18446744073709551615\n18446744073709551615",
    ])
}

/// A part always lies within the file.
pub(crate) fn range(bytes: &[u8]) {
    let (text, size) = halves(bytes);
    let size = size.trim().parse().unwrap_or(bytes.len() as u64);
    if let Some((offset, length)) = fuzz::range(&text, size) {
        assert!(length > 0 && offset.checked_add(length).is_some_and(|end| end <= size), "{text} of {size}");
    }
}

pub(crate) fn route_seeds() -> Vec<Vec<u8>> {
    texts(&["GET\n/health", "POST\n/shell/exec", "GET\n/shell/processes/proc_1", "DELETE\n/executions/a/b"])
}

/// A route that is found is the one that was asked for, and takes one segment at most.
pub(crate) fn route(bytes: &[u8]) {
    let (method, path) = halves(bytes);
    let Some((pattern, part)) = fuzz::route(&method, &path) else { return };
    match pattern.split_once('{').zip(pattern.split_once('}')) {
        None => assert_eq!((pattern, part.as_str()), (path.as_str(), "")),
        Some(((head, _), (_, tail))) => {
            assert_eq!(format!("{head}{part}{tail}"), path);
            assert!(!part.is_empty() && !part.contains('/'), "{part:?}");
        }
    }
}

pub(crate) fn path_seeds() -> Vec<Vec<u8>> {
    texts(&["a/b/../c.txt", "./a//b/.", "../a", "/a", "a\0b", "a/../..", ".", "…/ä"])
}

/// A path that is taken stays beneath its start, and its plain form means itself.
pub(crate) fn path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(plain) = fuzz::path(&text) else { return };
    assert!(!plain.starts_with('/') && !plain.contains('\0') && !plain.is_empty(), "{plain:?}");
    assert!(plain == "." || plain.split('/').all(|part| !matches!(part, "" | "." | "..")), "{plain:?}");
    assert_eq!(fuzz::path(&plain).as_deref(), Some(plain.as_str()));
}

pub(crate) fn body_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"command":"echo hi","timeout":5,"cwd":"a","env":{"A":"b"},"stdin":"x"}"#,
        r#"{"code":"print(1)","timeout":30}"#,
        r#"{"path":"a","encoding":"base64","offset":1,"limit":2}"#,
        r#"{"path":"a","content":"x","mode":420,"append":true,"expected_size":0,"if_match":"*"}"#,
        r#"{"path":".","recursive":true,"hidden":false,"limit":10,"cursor":"ZmE"}"#,
        r#"{"path":"\ud800","limit":1e999}"#,
    ])
}

/// A body is refused, or read as something that says the same when it is written again.
pub(crate) fn body(bytes: &[u8]) {
    stable::<ShellExecRequest>(bytes);
    stable::<PythonExecRequest>(bytes);
    stable::<ReadFileRequest>(bytes);
    stable::<WriteFileRequest>(bytes);
    stable::<DeleteFileRequest>(bytes);
    stable::<ListDirRequest>(bytes);
}

fn stable<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return };
    let once = serde_json::to_value(&read).ok();
    let again = once.clone().and_then(|value| serde_json::from_value::<T>(value).ok());
    assert_eq!(again.and_then(|read| serde_json::to_value(&read).ok()), once);
}
