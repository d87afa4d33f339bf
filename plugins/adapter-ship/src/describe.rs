//! What this adapter can do, in JSON Schema.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{executions, processes};
use crate::exports::bay::plugin::adapter::{CapabilitySpec, Manifest, OperationSpec};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Most entries of one page of a directory: Ship's own bound.
const MAX_ENTRIES: u32 = 1000;

/// There is nothing to configure yet; a key that would do nothing is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

pub fn manifest(config: &str) -> Result<Manifest, String> {
    let Config {} = serde_json::from_str(config).map_err(|e| e.to_string())?;
    let capabilities = vec![
        capability("python", "A Python interpreter that keeps its state between calls.", vec![python_exec()]),
        capability("shell", "Commands in the sandbox's shell.", {
            let mut operations = vec![shell_exec()];
            operations.extend(processes::describe());
            operations
        }),
        capability("executions", "What runs and ran, for Bay's own routes.", executions::describe()),
        capability(
            "filesystem",
            "Files beneath the sandbox's workspace.",
            vec![read_file(), write_file(), delete_file(), list_dir(), download()],
        ),
    ];
    Ok(Manifest { capabilities, wants: Vec::new() })
}

fn capability(name: &str, summary: &str, operations: Vec<OperationSpec>) -> CapabilitySpec {
    CapabilitySpec { name: name.into(), summary: summary.into(), operations }
}

pub fn operation(name: &str, summary: &str, traits: &[&str], input: Value, output: Value) -> OperationSpec {
    OperationSpec {
        name: name.into(),
        summary: summary.into(),
        input_schema: input.to_string(),
        output_schema: output.to_string(),
        traits: traits.iter().map(|t| (*t).to_owned()).collect(),
    }
}

pub fn object(title: &str, required: &[&str], properties: Value) -> Value {
    json!({ "$schema": DRAFT, "title": title, "type": "object", "required": required, "properties": properties })
}

fn path(description: &str) -> Value {
    json!({ "type": "string", "format": "workspace-path", "maxLength": 4096,
        "description": description, "examples": ["data/report.csv"] })
}

fn timeout() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": 3600, "default": 30,
        "description": "Seconds the work may take, counted from when it starts." })
}

fn on_disconnect() -> Value {
    json!({ "type": ["string", "null"], "enum": ["interrupt", "continue", null], "default": null,
        "description": "Of a stream of events: what becomes of the work when its reader goes. `interrupt` where \
            nothing is said." })
}

fn encoding() -> Value {
    json!({ "type": "string", "enum": ["utf-8", "base64"], "default": "utf-8",
        "description": "How `content` holds the file's bytes." })
}

fn python_exec() -> OperationSpec {
    let input = object(
        "Python code to run",
        &["code"],
        json!({
            "code": { "type": "string", "description": "Python source; the last expression's value is a result.",
                "examples": ["print(1 + 1)"] },
            "timeout": timeout(),
            "include_code": { "type": "boolean", "default": false, "description": "Repeat `code` in the answer." },
            "context": { "type": "string", "enum": ["default"], "default": "default",
                "description": "The one interpreter of the session." },
            "expect_kernel": { "type": ["integer", "null"], "minimum": 0, "default": null,
                "description": "Run only in the kernel with this `kernel_seq`, else 409 `state_lost`." },
            "on_disconnect": on_disconnect(),
        }),
    );
    let output = object(
        "What the code did",
        &[
            "success",
            "output",
            "error",
            "error_detail",
            "data",
            "execution_time_ms",
            "kernel_seq",
            "truncated",
        ],
        json!({
            "success": { "type": "boolean", "description": "False for an exception, a timeout or a lost kernel." },
            "output": { "type": "string", "description": "What was printed, then results as text." },
            "error": { "type": ["string", "null"], "description": "The traceback without colours." },
            "error_detail": { "type": ["object", "null"], "required": ["name", "value", "traceback"],
                "properties": {
                    "name": { "type": "string", "description": "The exception's class." },
                    "value": { "type": "string", "description": "The exception as text." },
                    "traceback": { "type": "array", "items": { "type": "string" } },
                } },
            "data": { "type": "object", "required": ["execution_count", "output"], "properties": {
                "execution_count": { "type": ["integer", "null"], "description": "IPython's counter." },
                "output": { "type": "object", "required": ["text", "images", "results"], "properties": {
                    "text": { "type": "string" },
                    "images": { "type": "array", "items": { "type": "object" },
                        "description": "`{\"image/png\": base64}` each." },
                    "results": { "type": "array", "items": { "type": "object" }, "description": "MIME bundles." },
                } },
            } },
            "execution_time_ms": { "type": "integer", "minimum": 0 },
            "queued_ms": { "type": "integer", "minimum": 0, "description": "Waiting for the kernel." },
            "kernel_seq": { "type": "integer", "minimum": 0, "description": "Grows with each new kernel." },
            "truncated": { "type": "boolean", "description": "There was more than fits here." },
            "code": { "type": ["string", "null"], "description": "The code, where `include_code` asked for it." },
        }),
    );
    operation("exec", "Run Python code; variables stay until the session ends.", &["records", "streams"], input, output)
}

fn shell_exec() -> OperationSpec {
    let input = object(
        "A command to run",
        &["command"],
        json!({
            "command": { "type": "string", "minLength": 1, "description": "For a non-login shell without rc files.",
                "examples": ["ls -la"] },
            "timeout": { "type": ["integer", "null"], "minimum": 1, "maximum": 3600, "description":
                "Seconds the command may take: 30 where nothing is said, and no bound in the background." },
            "cwd": { "type": ["string", "null"], "format": "workspace-path", "default": null,
                "description": "Working directory; the workspace itself where nothing is said." },
            "env": { "type": ["object", "null"], "default": null, "additionalProperties": { "type": "string" },
                "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" }, "maxProperties": 256,
                "description": "Environment over the sandbox's own." },
            "stdin": { "type": ["string", "null"], "default": null, "description": "Text for standard input." },
            "include_code": { "type": "boolean", "default": false,
                "description": "Repeat `command` in the answer." },
            "background": { "type": "boolean", "default": false,
                "description": "Answer at once with a `process_id`, and let it run." },
            "on_disconnect": on_disconnect(),
        }),
    );
    let output = object(
        "What the command did",
        &["success", "output", "error", "stdout", "stderr", "exit_code", "signal", "truncated", "process_id"],
        json!({
            "success": { "type": "boolean", "description": "True for exit code 0." },
            "output": { "type": "string", "description": "stdout followed by stderr." },
            "error": { "type": ["string", "null"], "description": "Why it failed." },
            "stdout": { "type": "string" },
            "stderr": { "type": "string" },
            "exit_code": { "type": ["integer", "null"], "description": "Null after a timeout or a signal." },
            "signal": { "type": ["string", "null"], "description": "The signal that ended it." },
            "truncated": { "type": "boolean", "description": "There was more than fits here." },
            "execution_time_ms": { "type": "integer", "minimum": 0 },
            "command": { "type": ["string", "null"],
                "description": "The command, where `include_code` asked for it." },
            "process_id": { "type": "string" },
        }),
    );
    operation("exec", "Run a shell command.", &["records", "streams"], input, output)
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
    let entry = object(
        "An entry",
        &["name", "path", "type", "size", "modified_at", "mode"],
        json!({
            "name": { "type": "string" },
            "path": { "type": "string" },
            "type": { "type": "string", "enum": ["file", "directory", "symlink"] },
            "size": { "type": "integer", "minimum": 0 },
            "modified_at": { "type": ["string", "null"], "format": "date-time" },
            "mode": { "type": "string", "description": "Octal permission bits.", "examples": ["0644"] },
        }),
    );
    let output = object(
        "A page of a directory",
        &["entries", "truncated", "next_cursor"],
        json!({
            "entries": { "type": "array", "items": entry, "description": "Directories first, then by name." },
            "truncated": { "type": "boolean", "description": "There is more." },
            "next_cursor": { "type": ["string", "null"] },
        }),
    );
    operation("list_dir", "List a directory.", &["safe"], input, output)
}

fn download() -> OperationSpec {
    let input = object("A file to download", &["path"], json!({ "path": path("The file.") }));
    let output = object(
        "The file's bytes go to the caller as they are",
        &["status", "bytes"],
        json!({ "status": { "type": "string" }, "bytes": { "type": "integer", "minimum": 0 } }),
    );
    operation("download", "Download a file of any size.", &["safe", "streams"], input, output)
}
