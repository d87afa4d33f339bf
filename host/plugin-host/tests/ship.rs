//! adapter-ship: what it asks Ship, and what it makes of the answers, honest and otherwise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::sync::Arc;

use bay_plugin_host::schema::Schema;
use bay_plugin_host::{AdapterPlugin, FaultKind, ForwardEnd, Manifest, OperationSpec, Target};
use common::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Loaded once: to check a manifest in a debug build takes longer than many calls.
async fn ship() -> Arc<AdapterPlugin> {
    static SHIP: OnceCell<Arc<AdapterPlugin>> = OnceCell::const_new();
    SHIP.get_or_init(|| adapter("adapter-ship", json!({}))).await.clone()
}

async fn run(capability: &str, operation: &str, input: Value, runtime: &Canned) -> Value {
    let ship = ship().await;
    let answer = reply(ship.run(call(capability, operation, input), runtime, soon()).await);
    let spec = ship.manifest().operation(capability, operation).unwrap();
    let output = Schema::compile(&spec.output_schema).unwrap();
    assert_eq!(output.errors(&answer), [], "its own output schema");
    answer
}

async fn fails(capability: &str, operation: &str, input: Value, runtime: &Canned) -> bay_plugin_host::Fault {
    let ship = ship().await;
    failure(ship.run(call(capability, operation, input), runtime, soon()).await)
}

fn asked(runtime: &Canned) -> (String, Value) {
    let request = runtime.last();
    assert_eq!(request.target, Target::Runtime);
    assert_eq!(request.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    let body = serde_json::from_slice(request.body.as_deref().unwrap()).unwrap();
    (format!("{} /{}", request.method, request.path.join("/")), body)
}

fn python_answer() -> Value {
    json!({
        "success": true, "output": "2\n", "error": null, "error_detail": null,
        "data": { "execution_count": 3, "output": {
            "text": "2\n", "images": [{ "image/png": "iVBOR" }], "results": [{ "text/plain": "2" }],
        } },
        "execution_id": "exe_1", "session_seq": 1, "kernel_seq": 1, "timed_out": false, "truncated": false,
        "execution_time_ms": 4, "queued_ms": 1, "code": null,
    })
}

fn shell_answer() -> Value {
    json!({
        "success": true, "output": "out\nerr\n", "error": null, "stdout": "out\n", "stderr": "err\n",
        "exit_code": 0, "signal": null, "timed_out": false, "truncated": false, "execution_id": "exe_1",
        "session_seq": 1, "execution_time_ms": 2, "command": null, "process_id": "p1",
    })
}

/// What a client gets of an answer: the host alone says which execution and session it was, and `error` says that
/// its time was up.
fn for_clients(mut answer: Value) -> Value {
    for field in ["execution_id", "session_seq", "timed_out"] {
        answer.as_object_mut().unwrap().remove(field);
    }
    answer
}

#[tokio::test]
async fn python_is_asked_and_answered_as_the_contract_says() {
    let runtime = Canned::json(200, python_answer());
    let input = json!({ "code": "1 + 1", "timeout": 30, "include_code": false, "unknown": 1 });
    let answer = run("python", "exec", input, &runtime).await;
    let body = json!({ "code": "1 + 1", "timeout": 30, "include_code": false });
    assert_eq!(asked(&runtime), ("POST /ipython/exec".into(), body));
    assert_eq!(answer, for_clients(python_answer()));
    // How long a client waits is between it and the host.
    let input = json!({ "code": "1 + 1", "timeout": 30, "wait": 3, "include_code": true });
    run("python", "exec", input, &runtime).await;
    let body = json!({ "code": "1 + 1", "timeout": 30, "include_code": true });
    assert_eq!(asked(&runtime).1, body);
}

#[tokio::test]
async fn an_exception_is_an_answer() {
    let mut body = python_answer();
    body["success"] = json!(false);
    body["error"] = json!("Traceback…\nValueError: no");
    body["error_detail"] = json!({ "name": "ValueError", "value": "no", "traceback": ["a", "b"] });
    let answer = run("python", "exec", json!({ "code": "x", "timeout": 1 }), &Canned::json(200, body)).await;
    assert_eq!(answer["success"], false);
    assert_eq!(answer["error_detail"]["name"], "ValueError");
    assert_eq!(answer["error"], "Traceback…\nValueError: no");
}

#[tokio::test]
async fn shell_is_asked_and_answered_as_the_contract_says() {
    let runtime = Canned::json(200, shell_answer());
    let input = json!({ "command": "ls", "timeout": 9, "cwd": "a", "env": { "A": "1" }, "stdin": "x" });
    let answer = run("shell", "exec", input, &runtime).await;
    let body = json!({
        "command": "ls", "timeout": 9, "cwd": "a", "env": { "A": "1" }, "stdin": "x", "include_code": false,
    });
    assert_eq!(asked(&runtime), ("POST /shell/exec".into(), body));
    assert_eq!(answer, for_clients(shell_answer()));
}

#[tokio::test]
async fn a_failed_command_is_an_answer() {
    let mut body = shell_answer();
    for (name, value) in [
        ("success", json!(false)),
        ("exit_code", json!(null)),
        ("signal", json!("SIGKILL")),
        ("error", json!("ended by SIGKILL")),
        ("timed_out", json!(true)),
    ] {
        body[name] = value;
    }
    let input = json!({ "command": "x", "timeout": 5 });
    let answer = run("shell", "exec", input, &Canned::json(200, body.clone())).await;
    assert_eq!(answer, for_clients(body));
}

#[tokio::test]
async fn files_are_asked_and_answered_as_the_contract_says() {
    let file = json!({ "content": "a\nb", "path": "a.txt", "size": 3, "encoding": "utf-8", "etag": "e" });
    let runtime = Canned::json(200, file.clone());
    let input = json!({ "path": "a.txt", "encoding": "utf-8", "offset": 1, "limit": null });
    assert_eq!(run("filesystem", "read_file", input.clone(), &runtime).await, file);
    assert_eq!(asked(&runtime), ("POST /fs/read_file".into(), input));

    let written = json!({ "status": "ok", "path": "a.txt", "size": 3, "etag": "e" });
    let runtime = Canned::json(200, written.clone());
    let input = json!({ "path": "a.txt", "content": "a\nb", "if_match": "*" });
    assert_eq!(run("filesystem", "write_file", input, &runtime).await, written);
    let (line, body) = asked(&runtime);
    assert_eq!((line.as_str(), &body["if_match"]), ("POST /fs/write_file", &json!("*")));

    let runtime = Canned::json(200, json!({ "status": "ok", "extra": 1 }));
    assert_eq!(
        run("filesystem", "delete_file", json!({ "path": "a" }), &runtime).await,
        json!({ "status": "ok" })
    );
    assert_eq!(asked(&runtime).0, "POST /fs/delete_file");

    let entry = |kind: &str| {
        json!({ "name": "a", "path": "a", "type": kind, "size": 1,
        "modified_at": "2026-01-01T00:00:00.000Z", "mode": "0644" })
    };
    let page = json!({ "entries": [entry("file"), entry("other")], "truncated": true, "next_cursor": "c" });
    let runtime = Canned::json(200, page);
    let answer = run("filesystem", "list_dir", json!({ "path": "", "recursive": true }), &runtime).await;
    assert_eq!(answer["entries"], json!([entry("file")]));
    assert_eq!(answer["next_cursor"], "c");
    assert_eq!(asked(&runtime).1["path"], ".");
}

#[tokio::test]
async fn the_largest_file_passes() {
    for content in ["x".repeat(8 << 20), "\n\"\\".repeat((8 << 20) / 3), "é".repeat(4 << 20)] {
        let size = content.len();
        let file = json!({ "content": content, "path": "a", "size": size, "encoding": "utf-8", "etag": "e" });
        let answer = run("filesystem", "read_file", json!({ "path": "a" }), &Canned::json(200, file)).await;
        assert_eq!(answer["content"].as_str().map(str::len), Some(size));
        let runtime = Canned::json(200, json!({ "status": "ok", "path": "a", "size": size, "etag": "e" }));
        run("filesystem", "write_file", json!({ "path": "a", "content": answer["content"] }), &runtime).await;
        assert_eq!(asked(&runtime).1["content"].as_str().map(str::len), Some(size));
    }
}

#[tokio::test]
async fn what_streams_is_forwarded_with_what_was_asked_for() {
    let end = || ForwardEnd { status: 200, bytes: 9, end: "complete".into(), refusal: None };
    for (capability, operation, input, wanted) in [
        (
            "filesystem",
            "upload",
            json!({ "path": "a&b", "mode": 420, "if_match": "e" }),
            "POST fs/upload path=a&b mode=420 if_match=e",
        ),
        ("filesystem", "archive", json!({ "path": "." }), "POST fs/archive path=."),
        (
            "filesystem",
            "watch",
            json!({ "path": "d", "recursive": true }),
            "GET fs/watch path=d recursive=true",
        ),
        (
            "terminal",
            "ws",
            json!({ "cols": 80, "rows": 24, "term": "vt100" }),
            "GET term/ws cols=80 rows=24 term=vt100",
        ),
    ] {
        let runtime = Canned::forward(Ok(end()));
        let answer = run(capability, operation, input, &runtime).await;
        assert_eq!(answer, json!({ "status": "ok", "bytes": 9 }));
        let request = runtime.last();
        let query: String = request.query.iter().map(|(n, v)| format!(" {n}={v}")).collect();
        assert_eq!(format!("{} {}{query}", request.method, request.path.join("/")), wanted);
        assert_eq!(request.body, None, "the caller's goes");
    }
}

#[tokio::test]
async fn a_download_is_forwarded() {
    let end = ForwardEnd { status: 200, bytes: 5, end: "complete".into(), refusal: None };
    let runtime = Canned::forward(Ok(end));
    let answer = run("filesystem", "download", json!({ "path": "a b/&.txt" }), &runtime).await;
    assert_eq!(answer, json!({ "status": "ok", "bytes": 5 }));
    let request = runtime.last();
    assert_eq!((request.method.as_str(), request.path.join("/").as_str()), ("GET", "fs/download"));
    assert_eq!(request.query, [("path".to_owned(), "a b/&.txt".to_owned())]);

    let body = json!({ "error": { "code": "file_not_found", "message": "no a", "details": {} } });
    let end =
        ForwardEnd { status: 404, bytes: 0, end: "refused".into(), refusal: Some(body.to_string().into()) };
    let fault = fails("filesystem", "download", json!({ "path": "a" }), &Canned::forward(Ok(end))).await;
    assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::FileNotFound, "no a"));
    let end = ForwardEnd { status: 200, bytes: 5, end: "runtime_gone".into(), refusal: None };
    let fault = fails("filesystem", "download", json!({ "path": "a" }), &Canned::forward(Ok(end))).await;
    assert_eq!(fault.kind, FaultKind::Runtime);
    let gone = Canned::forward(Err("connection refused".into()));
    assert_eq!(fails("filesystem", "download", json!({ "path": "a" }), &gone).await.kind, FaultKind::Runtime);
}

#[tokio::test]
async fn ships_errors_keep_their_kind_and_strange_ones_become_runtime_errors() {
    let error = |code: &str, details: Value| json!({ "error": { "code": code, "message": "because", "details": details } });
    for (status, code, kind) in [
        (400, "validation_error", FaultKind::Validation),
        (400, "invalid_path", FaultKind::InvalidPath),
        (400, "is_a_directory", FaultKind::IsADirectory),
        (400, "not_a_directory", FaultKind::NotADirectory),
        (403, "permission_denied", FaultKind::PermissionDenied),
        (404, "file_not_found", FaultKind::FileNotFound),
        (409, "conflict", FaultKind::Conflict),
        (409, "already_exists", FaultKind::AlreadyExists),
        (413, "payload_too_large", FaultKind::PayloadTooLarge),
        (429, "busy", FaultKind::Busy),
        (507, "storage_full", FaultKind::StorageFull),
        (400, "capability_not_supported", FaultKind::NotSupported),
    ] {
        let runtime = Canned::json(status, error(code, json!({ "reason": "path_traversal" })));
        let fault = fails("filesystem", "read_file", json!({ "path": "a" }), &runtime).await;
        assert_eq!((fault.kind, fault.code, fault.message.as_str()), (kind, None, "because"), "{code}");
        assert_eq!(fault.details, json!({ "reason": "path_traversal" }));
    }
    // What only Bay may say, and what nobody knows.
    for code in ["unauthorized", "internal_error", "quota_exceeded", "weird"] {
        let runtime = Canned::json(500, error(code, json!(7)));
        let fault = fails("filesystem", "read_file", json!({ "path": "a" }), &runtime).await;
        assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::Runtime, Some(code)));
        assert_eq!(fault.details, json!({}));
    }
    let runtime = Canned::json(500, error(&"c".repeat(5000), json!({})));
    let fault = fails("filesystem", "read_file", json!({ "path": "a" }), &runtime).await;
    assert_eq!(fault.code.unwrap().len(), 100);
}

#[tokio::test]
async fn malformed_answers_are_runtime_errors_and_never_traps() {
    let inputs = [
        ("python", "exec", json!({ "code": "1", "timeout": 1 })),
        ("shell", "exec", json!({ "command": "1", "timeout": 1 })),
        ("filesystem", "read_file", json!({ "path": "a" })),
        ("filesystem", "write_file", json!({ "path": "a", "content": "" })),
        ("filesystem", "delete_file", json!({ "path": "a" })),
        ("filesystem", "list_dir", json!({ "path": "a" })),
    ];
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)).into_bytes();
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"<html>".to_vec(),
        vec![0xFF, 0xFE],
        deep,
        br#"{"status": 7, "success": "yes", "entries": {}, "content": null}"#.to_vec(),
    ];
    for (capability, operation, input) in &inputs {
        for body in &bodies {
            for status in [200, 204, 302, 400, 500, 999] {
                let runtime = Canned::raw(status, body.clone());
                let fault = fails(capability, operation, input.clone(), &runtime).await;
                assert_eq!(fault.kind, FaultKind::Runtime, "{capability}.{operation} {status}");
            }
        }
    }
}

fn operations(manifest: &Manifest) -> Vec<(String, &OperationSpec)> {
    let all = manifest.capabilities.iter();
    all.flat_map(|c| c.operations.iter().map(move |o| (format!("{}.{}", c.name, o.name), o))).collect()
}

#[tokio::test]
async fn its_manifest_says_what_bay_needs() {
    let ship = ship().await;
    let all = operations(ship.manifest());
    let names = |has: fn(&OperationSpec) -> bool| -> Vec<String> {
        all.iter().filter(|(_, o)| has(o)).map(|(n, _)| n.clone()).collect()
    };
    assert_eq!(names(|o| o.records), ["python.exec", "shell.exec"]);
    let streams = names(|o| o.streams);
    for name in [
        "python.exec",
        "shell.exec",
        "executions.output",
        "executions.events",
        "filesystem.upload",
        "filesystem.download",
        "filesystem.archive",
        "filesystem.watch",
    ] {
        assert!(streams.iter().any(|n| n == name), "{name}: {streams:?}");
    }
    let safe = names(|o| o.safe);
    for name in ["filesystem.read_file", "filesystem.list_dir", "filesystem.download", "executions.result"] {
        assert!(safe.iter().any(|n| n == name), "{name}: {safe:?}");
    }
    for name in [
        "python.exec",
        "shell.exec",
        "shell.process_stdin",
        "filesystem.write_file",
        "filesystem.upload",
        "filesystem.move",
    ] {
        assert!(!safe.iter().any(|n| n == name), "{name}: {safe:?}");
    }
    assert_eq!(names(|o| o.upgrade), ["terminal.ws"]);
    for (name, operation) in &all {
        assert_eq!(
            operation.input_schema["$schema"], "https://json-schema.org/draft/2020-12/schema",
            "{name}"
        );
        assert!(!operation.summary.is_empty() && operation.input_schema["title"].is_string(), "{name}");
    }
    let paths = |name: &str| {
        let operation = all.iter().find(|(n, _)| n == name).unwrap().1;
        Schema::compile(&operation.input_schema).unwrap().workspace_paths().to_vec()
    };
    assert_eq!(paths("shell.exec"), ["cwd"]);
    for name in ["read_file", "write_file", "edit_file", "delete_file", "list_dir", "make_dir", "stat"] {
        assert_eq!(paths(&format!("filesystem.{name}")), ["path"]);
    }
    for name in ["upload", "download", "archive", "watch"] {
        assert_eq!(paths(&format!("filesystem.{name}")), ["path"]);
    }
    assert_eq!(paths("filesystem.move"), ["from", "to"]);
}

#[tokio::test]
async fn inputs_are_held_to_their_schemas() {
    let ship = ship().await;
    let errors = |capability: &str, operation: &str, mut input: Value| {
        let spec = ship.manifest().operation(capability, operation).unwrap();
        let schema = Schema::compile(&spec.input_schema).unwrap();
        schema.fill_defaults(&mut input);
        let mut fields: Vec<_> = schema.errors(&input).into_iter().map(|(f, _)| f).collect();
        fields.sort();
        fields
    };
    assert_eq!(errors("python", "exec", json!({ "code": "1" })), Vec::<String>::new());
    assert_eq!(errors("python", "exec", json!({ "timeout": 0 })), ["code", "timeout"]);
    assert_eq!(errors("python", "exec", json!({ "code": 1, "timeout": 3601 })), ["code", "timeout"]);
    assert_eq!(errors("shell", "exec", json!({ "command": "x", "env": { "A": 1 } })), ["env.A"]);
    assert_eq!(errors("shell", "exec", json!({ "command": "" })), ["command"]);
    assert_eq!(errors("filesystem", "list_dir", json!({})), Vec::<String>::new());
    assert_eq!(errors("filesystem", "list_dir", json!({ "limit": 0 })), ["limit"]);
    assert_eq!(errors("filesystem", "read_file", json!({ "path": "a", "encoding": "latin1" })), ["encoding"]);
}

#[tokio::test]
async fn a_streamed_execution_is_forwarded_with_its_own_body_and_then_asked_for_its_end() {
    let ship = ship().await;
    let mut exec = call("python", "exec", json!({ "code": "1", "timeout": 9, "on_disconnect": "continue" }));
    exec.context.execution_id = Some("exe_1".into());
    exec.context.facts = vec![("events".into(), "true".into())];
    let end = |end: &str| ForwardEnd { status: 200, bytes: 1, end: end.into(), refusal: None };
    let record = json!({
        "execution_id": "exe_1", "capability": "python", "status": "succeeded", "error": null,
        "result": python_answer(),
    });
    for how in ["complete", "client_gone", "runtime_gone"] {
        let runtime = Canned::json(200, record.clone()).and_forward(Ok(end(how)));
        let answer = reply(ship.run(exec.clone(), &runtime, soon()).await);
        assert_eq!(answer, for_clients(python_answer()), "{how}");
        let asked = runtime.asked.lock().unwrap().clone();
        let body: Value = serde_json::from_slice(asked[0].body.as_deref().unwrap()).unwrap();
        assert_eq!(body["on_disconnect"], "continue");
        assert!(asked[0].headers.contains(&("accept".into(), "text/event-stream".into())));
        assert_eq!(asked[1].path, ["executions", "exe_1"]);
    }
    let failed = json!({
        "execution_id": "exe_1", "capability": "python", "status": "error", "result": null,
        "error": { "code": "state_lost", "message": "the kernel was restarted", "details": {} },
    });
    let runtime = Canned::json(200, failed).and_forward(Ok(end("complete")));
    let fault = failure(ship.run(exec.clone(), &runtime, soon()).await);
    assert_eq!(fault.kind, FaultKind::StateLost);
    let busy = br#"{"error":{"code":"busy","message":"16 calls wait"}}"#.to_vec();
    let refused = ForwardEnd { status: 429, bytes: 0, end: "refused".into(), refusal: Some(busy) };
    let fault = failure(ship.run(exec, &Canned::forward(Ok(refused)), soon()).await);
    assert_eq!(fault.kind, FaultKind::Busy);
}

#[tokio::test]
async fn a_list_is_no_input() {
    let ship = ship().await;
    let call = call("shell", "process_kill", json!([""]));
    let fault = failure(ship.run(call, &Canned::json(200, json!({})), soon()).await);
    assert_eq!(fault.kind, FaultKind::Validation);
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop_oneof![Just("code"), Just("path"), Just("timeout"), Just("status"), Just("entries")];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Neither inputs that no schema saw nor any runtime's answer make it trap or break its contract.
    #[test]
    fn nothing_makes_it_trap(input in json_value(), body in json_value(), status in 0u16..1000, which in 0usize..32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ship = ship().await;
            let all = operations(ship.manifest());
            let (capability, operation) = all[which % all.len()].0.split_once('.').unwrap();
            let refusal = Some(body.to_string().into_bytes());
            let end = ForwardEnd { status, bytes: 1, end: "refused".into(), refusal };
            let forwards = ["upload", "download", "archive", "watch", "ws", "output", "events"].contains(&operation);
            let canned = if forwards { Canned::forward(Ok(end)) } else { Canned::json(status, body) };
            let ended = ship.run(call(capability, operation, input), &canned, soon()).await;
            prop_assert!(ended.is_ok(), "{ended:?}");
            Ok(())
        })?;
    }
}
