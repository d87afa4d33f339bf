//! What Ship answers about files.

use bay_ship_api::http::{
    EditFileResponse, Entry, ListDirResponse, MakeDirResponse, MoveResponse, StatResponse, WriteFileResponse,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::{nonsense, parse, text};
use crate::bay::plugin::types::Fault;

/// How a response will be read.
pub enum Reader {
    Read,
    Write,
    Edit,
    Delete,
    MakeDir,
    Move,
    Stat,
    List,
}

/// An answer of the contract's shape, or a fault where Ship's does not have it.
pub fn read(reader: Reader, body: &str) -> Result<String, Fault> {
    match reader {
        Reader::Read => read_file(body),
        Reader::Write => text(256, &parse::<WriteFileResponse>(body)?),
        Reader::Edit => text(256, &parse::<EditFileResponse>(body)?),
        Reader::Delete => text(64, &parse::<Status>(body)?),
        Reader::MakeDir => text(256, &parse::<MakeDirResponse>(body)?),
        Reader::Move => text(256, &parse::<MoveResponse>(body)?),
        Reader::Stat => text(512, &parse::<StatResponse>(body)?),
        Reader::List => list_dir(body),
    }
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
