//! schemathesis reads the document and sends what it allows and what it forbids: no 500, no status that the document
//! does not name, no body that its schema does not fit.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bay_tests::{Bay, Options, Profile};
use serde_json::{Value, json};

use crate::python;

/// Longest run; the tool is told a little less.
const LIMIT: Duration = Duration::from_secs(110);
/// What Bay is held to.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,unsupported_method";
/// A stream without end is none of its business, nor is an archive, which it cannot make.
const STREAMS: &str = "(/watch|/ws|/events|/archive)$";

#[test]
fn schemathesis_finds_no_answer_that_the_document_does_not_allow() {
    // What is made without a word about its profile never starts: its root is not there.
    let never = Profile::python().container(json!({ "local": { "rootfs": "/nowhere" } }));
    let bay = Bay::start(Options::default().profile(never).profile(Profile::shell()));
    let api = bay.api();
    let used = api.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let doomed = api.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let document = tamed(api.get("/openapi.json").send().expect(200));
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(folder.path().join("openapi.json"), document.to_string()).expect("write the document");
    let key = api.post("/v1/admin/keys", &json!({ "name": "doomed" })).send().expect(201);
    let key = key["id"].as_str().expect("an id");
    let config = config(&used.id, &doomed.id, &used.locker, key);
    std::fs::write(folder.path().join("schemathesis.toml"), config).expect("write its configuration");
    let (well, said) = python::run_bounded(&mut tool(&bay, folder.path()), LIMIT);
    assert!(well, "schemathesis:\n{}", tail(&said));
    let log = bay.log();
    assert!(!log.contains("panicked") && !log.contains("internal error"), "{}", tail(&log));
    // More than the harness deletes by itself.
    for item in api.list("/v1/sandboxes") {
        let id = item["id"].as_str().unwrap_or_default();
        api.call("DELETE", &format!("/v1/sandboxes/{id}")).send().expect(204);
    }
}

fn tool(bay: &Bay, folder: &Path) -> Command {
    let mut command = Command::new(python::tools().join("bin/schemathesis"));
    command
        .current_dir(folder)
        .args(["--config-file", "schemathesis.toml", "run", "openapi.json"])
        .args(["--url", &format!("http://{}", bay.addr())])
        .args(["--header", &format!("Authorization: Bearer {}", bay.key())])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "8", "--workers", "1", "--request-timeout", "20", "--no-shrink"])
        .args(["--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off"])
        .args(["--exclude-path-regex", STREAMS, "--seed", &seed(), "--continue-on-failure"])
        .env("NO_COLOR", "1")
        .env("HOME", folder)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn seed() -> String {
    std::env::var("BAY_TEST_SEED").unwrap_or_else(|_| "5".to_owned())
}

/// Ids that are there, so that more than the 404 is seen; each deletes only what is there for it.
fn config(used: &str, doomed: &str, locker: &str, key: &str) -> String {
    let operation = |key: &str, value: &str, id: &str| json!({ key: value, "parameters": { "path.id": id } });
    let whole = json!({
        // 502 and later are for what is not Bay: they are in the document, or the other check finds them.
        "checks": { "not_a_server_error": { "expected-statuses": ["2xx", "3xx", "4xx", 502, 503, 504, 507] } },
        "operations": [
            operation("include-name", "DELETE /v1/sandboxes/{id}", doomed),
            // Its own it must not revoke.
            { "include-name": "DELETE /v1/admin/keys/{key}", "parameters": { "path.key": key } },
            operation("include-path-regex", "^/v1/sandboxes/[{]id[}]", used),
            operation("include-path-regex", "^/v1/lockers/[{]id[}]", locker),
        ],
    });
    toml::to_string(&whole).expect("its configuration as TOML")
}

/// Bounds on what takes time, nothing waits longer than a second or runs longer than two, and on a request's head.
fn tamed(mut document: Value) -> Value {
    tame(&mut document);
    document
}

fn tame(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let bound = |schema: &mut Value, most: u32| {
                if schema["type"].is_string() || schema["type"].is_array() {
                    schema["maximum"] = json!(most);
                    schema["default"] = json!(most);
                }
            };
            if ["wait", "timeout"].iter().any(|name| fields.get("name").is_some_and(|n| n == name)) {
                fields.get_mut("schema").into_iter().for_each(|schema| bound(schema, 1));
            }
            // A head over 64 KiB is refused before there is a route: 431, without a body.
            if fields.get("in").is_some_and(|place| place == "query" || place == "path") {
                let schema = fields.get_mut("schema").filter(|schema| {
                    schema["maxLength"].is_null() || schema["maxLength"].as_u64() > Some(512)
                });
                schema.into_iter().for_each(|schema| schema["maxLength"] = json!(512));
            }
            if let Some(properties) = fields.get_mut("properties") {
                for (name, most) in [("wait", 1), ("timeout", 2)] {
                    properties.get_mut(name).into_iter().for_each(|schema| bound(schema, most));
                }
            }
            fields.values_mut().for_each(tame);
        }
        Value::Array(items) => items.iter_mut().for_each(tame),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn tail(text: &str) -> &str {
    &text[text.floor_char_boundary(text.len().saturating_sub(12_000))..]
}
