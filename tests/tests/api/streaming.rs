//! Executions whose events are read while they come.

use std::io::Read as _;
use std::time::Duration;

use bay_tests::sse::{self, Event};
use bay_tests::{Bay, Options, Sandbox, form, until};
use serde_json::{Value, json};

#[test]
fn events_tell_an_execution_from_start_to_end() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "start": "lazy" }));
    a_start_is_told_of(&sandbox);
    python(&sandbox);
    shell(&sandbox);
    refused(&sandbox);
    resumed(&sandbox);
    not_an_execution(&sandbox);
}

#[test]
fn a_stream_ends_its_work_when_its_reader_leaves_unless_it_is_to_go_on() {
    let bay = Bay::start(Options::default().tenant("other"));
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    let leave = |name: &str, more: Value| {
        let mut body =
            json!({ "command": format!("touch {name}; until [ -e go ]; do sleep 0.01; done; echo went") });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut call = streamed(&sandbox, "shell/exec", &body).send_and_leave_unread();
        let id = head(&mut call);
        until("the command runs", Duration::from_secs(20), || exists(&sandbox, name).then_some(()));
        drop(call);
        id
    };
    let interrupted = ended(&sandbox, &leave("one", json!({})));
    assert_eq!((&interrupted["status"], &interrupted["success"]), (&json!("failed"), &json!(false)));
    let id = leave("two", json!({ "on_disconnect": "continue" }));
    let record = sandbox.call("GET", &format!("executions/{id}")).send().expect(200);
    assert_eq!(record["status"], "running", "{record}");

    let stranger = bay.as_tenant("other");
    for tail in ["", "/output", "/events"] {
        let target = format!("/v1/sandboxes/{}/executions/{id}{tail}", sandbox.id);
        stranger.get(&target).error(404, "not_found");
    }
    stranger
        .call("POST", &format!("/v1/sandboxes/{}/executions/{id}/cancel", sandbox.id))
        .error(404, "not_found");

    sandbox.write("go", "");
    let went = ended(&sandbox, &id);
    assert_eq!(
        (&went["status"], &went["result"]["stdout"]),
        (&json!("succeeded"), &json!("went\n")),
        "{went}"
    );
}

fn streamed(sandbox: &Sandbox, tail: &str, body: &Value) -> bay_tests::api::Call {
    sandbox.post(tail, body).header("Accept", "text/event-stream")
}

fn run(sandbox: &Sandbox, tail: &str, body: &Value) -> Vec<Event> {
    let answer = streamed(sandbox, tail, body).send();
    assert_eq!(answer.status, 200, "{}", answer.brief());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let id = answer.header("x-execution-id").unwrap_or_default().to_owned();
    assert!(form::is_id("exe_", &id), "{id}");
    let events = sse::events(&answer.text());
    let start = events.iter().find(|e| e.name == "start");
    assert!(start.is_none_or(|e| e.data["execution_id"] == json!(id)), "{events:?}");
    let ends = events.iter().filter(|e| ["result", "error"].contains(&e.name.as_str())).count();
    assert_eq!(ends, 1, "exactly one end: {events:?}");
    assert!(events.iter().all(|e| e.id.is_some()), "{events:?}");
    events
}

fn last(events: &[Event]) -> &Event {
    events.last().expect("an end")
}

fn a_start_is_told_of(sandbox: &Sandbox) {
    let events = run(sandbox, "shell/exec", &json!({ "command": "echo up" }));
    assert_eq!(sse::names(&events), ["status", "start", "stdout", "result"], "{events:?}");
    assert_eq!(events[0].data["status"], "starting");
}

fn python(sandbox: &Sandbox) {
    let code = "import sys\nprint('☃' * 3)\nprint('bad', file=sys.stderr)\n6 * 7";
    let events = run(sandbox, "python/exec", &json!({ "code": code, "include_code": true }));
    assert_eq!(sse::text(&events, "stdout").trim(), "☃☃☃", "{events:?}");
    assert_eq!(sse::text(&events, "stderr").trim(), "bad", "{events:?}");
    let start = events.iter().find(|e| e.name == "start").expect("a start");
    assert!(start.data["kernel_seq"].is_u64() && start.data["session_seq"].is_u64(), "{start:?}");
    let display = events.iter().find(|e| e.name == "display").expect("a result is shown");
    assert_eq!(display.data["text/plain"], "42", "{display:?}");
    let end = last(&events);
    assert_eq!((end.name.as_str(), &end.data["success"]), ("result", &json!(true)), "{end:?}");
    assert_eq!(end.data["code"], code);
    let id = end.data["execution_id"].as_str().unwrap();
    let record = sandbox.call("GET", &format!("executions/{id}")).send().expect(200);
    assert_eq!(record["result"], end.data, "the end is what the record says");
}

fn shell(sandbox: &Sandbox) {
    let command = "for n in 1 2 3; do echo $n; done; exit 3";
    let events = run(sandbox, "shell/exec", &json!({ "command": command }));
    assert_eq!(sse::text(&events, "stdout"), "1\n2\n3\n");
    let end = last(&events);
    assert_eq!((&end.data["success"], &end.data["exit_code"]), (&json!(false), &json!(3)), "{end:?}");
}

fn refused(sandbox: &Sandbox) {
    let events = run(sandbox, "python/exec", &json!({ "code": "1", "expect_kernel": 99 }));
    let end = last(&events);
    let error = &end.data["error"];
    assert_eq!((end.name.as_str(), &error["code"]), ("error", &json!("state_lost")), "{end:?}");
    assert!(error["request_id"].is_string() && error["retryable"] == false, "{end:?}");
    // What is wrong with the request itself is an answer, not a stream.
    streamed(sandbox, "python/exec", &json!({ "code": 1 })).bad_fields(&["code"]);
    streamed(sandbox, "python/exec", &json!({ "code": "1", "on_disconnect": "x" }))
        .bad_fields(&["on_disconnect"]);
}

fn resumed(sandbox: &Sandbox) {
    let command = "echo one; until [ -e on ]; do sleep 0.01; done; echo two";
    let early = sandbox.post("shell/exec", &json!({ "command": command, "wait": 0 })).send().expect(202);
    let tail = format!("executions/{}/events", early["execution_id"].as_str().unwrap());
    sandbox.write("on", "");
    let answer = sandbox.call("GET", &tail).send();
    let all = sse::events(&answer.text());
    assert_eq!(sse::names(&all), ["start", "stdout", "result"], "{all:?}");
    assert_eq!(sse::text(&all, "stdout"), "one\ntwo\n");
    let seen = all[all.len() - 2].id.unwrap().to_string();
    let rest = sandbox.call("GET", &tail).header("Last-Event-ID", &seen).send();
    let rest = sse::events(&rest.text());
    assert_eq!(rest, all[all.len() - 1..], "only what was not seen");
    sandbox.call("GET", &tail).header("Last-Event-ID", "x").bad_fields(&["Last-Event-ID"]);
}

/// A file is no execution: whoever asks for its events gets its content.
fn not_an_execution(sandbox: &Sandbox) {
    sandbox.write("plain", "text");
    let read = sandbox.file("plain").header("Accept", "text/event-stream").send().expect(200);
    assert_eq!(read["content"], "text");
}

fn exists(sandbox: &Sandbox, path: &str) -> bool {
    sandbox.file(path).send().status == 200
}

fn ended(sandbox: &Sandbox, id: &str) -> Value {
    until("the execution ends", Duration::from_secs(20), || {
        let record = sandbox.call("GET", &format!("executions/{id}?wait=5")).send().expect(200);
        (record["status"] != "running").then_some(record)
    })
}

/// The execution's id, out of the head of an answer that is still coming.
fn head(stream: &mut std::net::TcpStream) -> String {
    let mut raw = Vec::new();
    let mut byte = [0; 1];
    while !raw.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the head comes at once");
        raw.push(byte[0]);
    }
    let text = String::from_utf8(raw).expect("a head is text").to_ascii_lowercase();
    let line = text.lines().find_map(|l| l.strip_prefix("x-execution-id: ")).expect("the execution's id");
    line.trim().to_owned()
}
