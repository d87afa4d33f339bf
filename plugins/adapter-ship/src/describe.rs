//! What this adapter can do, in JSON Schema.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::exports::bay::plugin::adapter::{CapabilitySpec, Manifest, OperationSpec};
use crate::{executions, files, processes, terminal};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

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
        files::describe::capability(),
        terminal::capability(),
    ];
    Ok(Manifest { capabilities, wants: Vec::new() })
}

pub fn capability(name: &str, summary: &str, operations: Vec<OperationSpec>) -> CapabilitySpec {
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

pub fn path(description: &str) -> Value {
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
