//! What `filesystem` can do, in JSON Schema.

use serde_json::{Value, json};

use crate::describe::{capability as spec, object, operation, path};
use crate::exports::bay::plugin::adapter::{CapabilitySpec, OperationSpec};

/// Most entries of one page of a directory: Ship's own bound.
const MAX_ENTRIES: u32 = 1000;

pub fn capability() -> CapabilitySpec {
    let operations = vec![
        read_file(),
        write_file(),
        edit_file(),
        delete_file(),
        list_dir(),
        make_dir(),
        move_file(),
        stat(),
        upload(),
        download(),
        archive(),
        watch(),
    ];
    spec("filesystem", "Files beneath the sandbox's workspace.", operations)
}

fn encoding() -> Value {
    json!({ "type": "string", "enum": ["utf-8", "base64"], "default": "utf-8",
        "description": "How `content` holds the file's bytes." })
}

fn read_file() -> OperationSpec {
    let input = object(
        "A file to read",
        &["path"],
        json!({
            "path": path("The file."),
            "encoding": encoding(),
            "offset": { "type": ["integer", "null"], "minimum": 1, "default": null, "description": "First line, from 1." },
            "limit": { "type": ["integer", "null"], "minimum": 1, "default": null, "description": "Number of lines." },
        }),
    );
    let output = object(
        "A file's content",
        &["content", "path", "size", "encoding", "etag"],
        json!({
            "content": { "type": "string" },
            "path": { "type": "string" },
            "size": { "type": "integer", "minimum": 0, "description": "Bytes of the whole file." },
            "encoding": { "type": "string" },
            "etag": { "type": "string", "description": "Changes with the content." },
        }),
    );
    operation("read_file", "Read a file of at most 8 MiB.", &["safe"], input, output)
}

fn write_file() -> OperationSpec {
    let input = object(
        "A file to write",
        &["path", "content"],
        json!({
            "path": path("The file; directories above it are made."),
            "content": { "type": "string" },
            "encoding": encoding(),
            "mode": { "type": ["integer", "null"], "minimum": 0, "maximum": 4095, "default": null,
                "description": "Permission bits; only the lowest nine count." },
            "append": { "type": "boolean", "default": false, "description": "Add to what is there." },
            "expected_size": { "type": ["integer", "null"], "minimum": 0, "default": null,
                "description": "With `append`: refuse unless the file has this many bytes now." },
            "if_match": { "type": ["string", "null"], "default": null,
                "description": "Refuse unless the file has this etag now; `*`: unless it exists." },
        }),
    );
    let output = object(
        "A written file",
        &["status", "path", "size", "etag"],
        json!({
            "status": { "type": "string" },
            "path": { "type": "string" },
            "size": { "type": "integer", "minimum": 0 },
            "etag": { "type": "string" },
        }),
    );
    operation("write_file", "Write a file, whole or not at all.", &[], input, output)
}

fn delete_file() -> OperationSpec {
    let input = object(
        "A path to delete",
        &["path"],
        json!({ "path": path("A file, or a directory with all beneath.") }),
    );
    let output = object("Deleted", &["status"], json!({ "status": { "type": "string" } }));
    operation("delete_file", "Delete a file, or a directory with all beneath it.", &[], input, output)
}

fn list_dir() -> OperationSpec {
    let mut directory = path("The directory.");
    directory["default"] = json!(".");
    let input = object(
        "A directory to list",
        &[],
        json!({
            "path": directory,
            "recursive": { "type": "boolean", "default": false, "description": "Into subdirectories." },
            "hidden": { "type": "boolean", "default": false, "description": "Names that start with a dot, too." },
            "limit": { "type": ["integer", "null"], "minimum": 1, "maximum": MAX_ENTRIES, "default": null,
                "description": "Most entries of one page." },
            "cursor": { "type": ["string", "null"], "maxLength": 8192, "default": null,
                "description": "`next_cursor` of the page before." },
        }),
    );
    let output = object(
        "A page of a directory",
        &["entries", "truncated", "next_cursor"],
        json!({
            "entries": { "type": "array", "items": object("An entry", ENTRY, entry(&["file", "directory", "symlink"])), "description": "Directories first, then by name." },
            "truncated": { "type": "boolean", "description": "There is more." },
            "next_cursor": { "type": ["string", "null"] },
        }),
    );
    operation("list_dir", "List a directory.", &["safe"], input, output)
}

/// What an entry always has.
const ENTRY: &[&str] = &["name", "path", "type", "size", "modified_at", "mode"];

/// The properties of an entry, whose `type` is one of these.
fn entry(kinds: &[&str]) -> Value {
    json!({
        "name": { "type": "string" },
        "path": { "type": "string" },
        "type": { "type": "string", "enum": kinds },
        "size": { "type": "integer", "minimum": 0 },
        "modified_at": { "type": ["string", "null"], "format": "date-time" },
        "mode": { "type": "string", "description": "Octal permission bits.", "examples": ["0644"] },
    })
}

fn if_match() -> Value {
    json!({ "type": ["string", "null"], "maxLength": 128, "default": null,
        "description": "Refuse unless the file has this etag now; `*`: unless it exists." })
}

fn edit_file() -> OperationSpec {
    let input = object(
        "A change of a file's text",
        &["path", "old_string", "new_string"],
        json!({
            "path": path("A UTF-8 file of at most 8 MiB."),
            "old_string": { "type": "string", "minLength": 1,
                "description": "What to replace; it must be there exactly once, unless `replace_all`." },
            "new_string": { "type": "string", "description": "What to put there." },
            "replace_all": { "type": "boolean", "default": false, "description": "Every occurrence." },
            "if_match": if_match(),
        }),
    );
    let output = object(
        "A changed file",
        &["status", "path", "replacements", "size", "etag"],
        json!({
            "status": { "type": "string" },
            "path": { "type": "string" },
            "replacements": { "type": "integer", "minimum": 0 },
            "size": { "type": "integer", "minimum": 0 },
            "etag": { "type": "string" },
        }),
    );
    operation("edit_file", "Replace text in a file, whole or not at all.", &[], input, output)
}

fn make_dir() -> OperationSpec {
    let input = object(
        "A directory to make",
        &["path"],
        json!({ "path": path("The directory; those above it are made.") }),
    );
    let output = object(
        "A directory that is there",
        &["status", "path", "created"],
        json!({
            "status": { "type": "string" },
            "path": { "type": "string" },
            "created": { "type": "boolean", "description": "False: it was there already." },
        }),
    );
    operation("make_dir", "Make a directory and those above it.", &[], input, output)
}

fn move_file() -> OperationSpec {
    let input = object(
        "What to move, and where",
        &["from", "to"],
        json!({
            "from": path("A file, a directory, or a symbolic link, which is moved itself."),
            "to": path("Its new path, never a directory to put it into; directories above it are made."),
            "overwrite": { "type": "boolean", "default": false,
                "description": "Replace a file by a file, or an empty directory by a directory." },
        }),
    );
    let output = object(
        "Moved",
        &["status", "from", "to"],
        json!({ "status": { "type": "string" }, "from": { "type": "string" }, "to": { "type": "string" } }),
    );
    operation("move", "Move or rename a file or directory.", &[], input, output)
}

fn stat() -> OperationSpec {
    let input = object(
        "A path to look at",
        &["path"],
        json!({ "path": path("A symbolic link at its end is not followed.") }),
    );
    let mut properties = entry(&["file", "directory", "symlink", "other"]);
    properties["etag"] = json!({ "type": "string", "description": "As reads and writes give it." });
    properties["target"] =
        json!({ "type": ["string", "null"], "description": "Where a symbolic link points, as written in it." });
    let required: Vec<&str> = ENTRY.iter().copied().chain(["etag"]).collect();
    let output = object("What is there", &required, properties);
    operation("stat", "Size, kind, time and etag of a path.", &["safe"], input, output)
}

/// What the plugin itself says once bytes have gone past it; the caller has had its answer by then.
fn passed() -> Value {
    object(
        "Bytes that went to the caller as they are",
        &["status", "bytes"],
        json!({ "status": { "type": "string" }, "bytes": { "type": "integer", "minimum": 0 } }),
    )
}

fn upload() -> OperationSpec {
    let input = object(
        "Where the caller's bytes go",
        &["path"],
        json!({
            "path": path("The file; directories above it are made."),
            "mode": { "type": ["integer", "null"], "minimum": 0, "maximum": 4095, "default": null,
                "description": "Permission bits; only the lowest nine count." },
            "if_match": if_match(),
        }),
    );
    operation("upload", "Upload a file of any size, whole or not at all.", &["streams"], input, passed())
}

fn download() -> OperationSpec {
    let input = object(
        "A file or directory to download",
        &["path"],
        json!({ "path": path("A file, or a directory, which comes as tar.") }),
    );
    operation("download", "Download a file or directory of any size.", &["safe", "streams"], input, passed())
}

fn archive() -> OperationSpec {
    let mut directory = path("The directory to unpack into; it is made.");
    directory["default"] = json!(".");
    let input = object("Where the caller's archive goes", &[], json!({ "path": directory }));
    operation("archive", "Unpack a tar or tar.gz, whole or not at all.", &["streams"], input, passed())
}

fn watch() -> OperationSpec {
    let mut directory = path("The directory, or a file.");
    directory["default"] = json!(".");
    let input = object(
        "What to watch",
        &[],
        json!({
            "path": directory,
            "recursive": { "type": "boolean", "default": false, "description": "What is beneath, too." },
        }),
    );
    operation("watch", "Changes as server-sent events.", &["safe", "streams"], input, passed())
}
