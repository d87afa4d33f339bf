//! Executions are resources: made before the work begins, there when the caller has gone.

use std::time::Duration;

use bay_tests::{Bay, Options, Sandbox, form, until};
use serde_json::{Value, json};

#[test]
fn an_execution_is_a_resource_of_its_own() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let sandbox = api.sandbox(json!({ "profile": "shell-only" }));
    let ran = sandbox.shell("echo done");
    let id = ran["execution_id"].as_str().unwrap();
    let record = sandbox.call("GET", &format!("executions/{id}")).send().expect(200);
    assert_eq!((&record["execution_id"], &record["result"]), (&json!(id), &ran), "{record}");
    assert_eq!(record["status"], "succeeded", "{record}");
    let times = ["created_at", "ended_at"].iter().filter_map(|f| record[*f].as_str()).collect::<Vec<_>>();
    assert!(!times.is_empty() && times.iter().all(|t| form::is_time(t)), "{record}");
    assert!(!record.to_string().contains("default"), "the owner never shows: {record}");

    let unknown = "exe_00000000000000000000000000";
    let error = sandbox.call("GET", &format!("executions/{unknown}")).error(404, "not_found");
    assert_eq!(error["details"], json!({ "resource": "execution", "id": unknown }));
    let other = api.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    other.call("GET", &format!("executions/{id}")).error(404, "not_found");

    past_the_wait(&sandbox);
    client_gone(&sandbox);
    output_by_range(&sandbox);
    cancelled(&sandbox);
    reserved(&sandbox);
}

fn past_the_wait(sandbox: &Sandbox) {
    let body = json!({ "command": "until [ -e go ]; do sleep 0.01; done; echo went", "wait": 1 });
    let answer = sandbox.post("shell/exec", &body).send();
    let early = answer.expect(202);
    assert_eq!(early["status"], "running", "{early}");
    assert_eq!(answer.header("x-execution-id"), early["execution_id"].as_str());
    let tail = format!("executions/{}", early["execution_id"].as_str().unwrap());
    assert_eq!(sandbox.call("GET", &tail).send().expect(200)["status"], "running");
    sandbox.write("go", "");
    let ended = finished(sandbox, &tail);
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(ended.to_string().contains("went"), "the record carries the result: {ended}");
}

fn client_gone(sandbox: &Sandbox) {
    let body = json!({ "command": "touch begun; until [ -e go2 ]; do sleep 0.01; done; echo went > trace" });
    let call = sandbox.post("shell/exec", &body).send_and_leave_unread();
    let exists = |path: &str| sandbox.file(path).send().status == 200;
    until("the command runs", Duration::from_secs(10), || exists("begun").then_some(()));
    drop(call);
    sandbox.write("go2", "");
    // Only a stream is interrupted when its reader leaves.
    until("the work goes on without its caller", Duration::from_secs(10), || exists("trace").then_some(()));
}

fn output_by_range(sandbox: &Sandbox) {
    let ran = sandbox.shell("seq 1 400000; echo oops >&2");
    assert_eq!(ran["truncated"], true);
    let tail = format!("executions/{}/output", ran["execution_id"].as_str().unwrap());
    let whole: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    let all = sandbox.call("GET", &tail).send();
    assert_eq!(all.status, 200, "{}", all.brief());
    // More than an answer carries: the rest is on the runtime's disk.
    assert!(all.body == whole.as_bytes(), "{} of {} bytes", all.body.len(), whole.len());
    assert_eq!(all.header("x-output-total"), Some(whole.len().to_string().as_str()));
    let part = sandbox.call("GET", &tail).header("Range", "bytes=1000000-1000009").send();
    assert_eq!((part.status, part.text().as_str()), (206, &whole[1_000_000..1_000_010]));
    let end = whole.len() - 7;
    let rest = sandbox.call("GET", &tail).query("offset", &end.to_string()).send();
    assert_eq!((rest.status, rest.text().as_str()), (200, &whole[end..]));
    let stderr = sandbox.call("GET", &tail).query("stream", "stderr").send();
    assert_eq!(stderr.text(), "oops\n");
    sandbox.call("GET", &tail).header("Range", "bytes=99999999-").error(416, "range_not_satisfiable");
    sandbox.call("GET", &tail).query("stream", "stdin").bad_fields(&["stream"]);
    sandbox.call("GET", &tail).query("offset", "-1").bad_fields(&["offset"]);
}

fn cancelled(sandbox: &Sandbox) {
    let body = json!({ "command": "echo begun; sleep 600", "timeout": 600, "wait": 0 });
    let early = sandbox.post("shell/exec", &body).send().expect(202);
    let tail = format!("executions/{}", early["execution_id"].as_str().unwrap());
    sandbox.call("POST", &format!("{tail}/cancel")).send().expect(200);
    let ended = finished(sandbox, &tail);
    assert_eq!((&ended["status"], &ended["success"]), (&json!("failed"), &json!(false)), "{ended}");
    let again = sandbox.call("POST", &format!("{tail}/cancel")).send().expect(200);
    assert_eq!(again["status"], "failed", "what has ended stays as it ended: {again}");
    sandbox.call("POST", "executions/exe_00000000000000000000000000/cancel").error(404, "not_found");
}

/// What Bay's own routes ask of an adapter is no capability of a sandbox.
fn reserved(sandbox: &Sandbox) {
    for tail in ["executions/output", "executions/cancel"] {
        sandbox.post(tail, &json!({})).error(405, "method_not_allowed");
    }
    assert!(!sandbox.show()["capabilities"].as_array().unwrap().contains(&json!("executions")));
}

#[test]
fn a_key_runs_an_execution_once() {
    let bay = Bay::start(Options::default().tenant("other"));
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    let keyed = |key: &str, body: &Value| sandbox.post("shell/exec", body).header("Idempotency-Key", key);
    let count = json!({ "command": "echo x >> runs; wc -l < runs" });
    let first = keyed("one", &count).send();
    let ran = first.expect(200);
    assert!(first.header("idempotency-replayed").is_none());
    let again = keyed("one", &count).send();
    assert_eq!((again.status, &again.body), (200, &first.body), "byte for byte");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    keyed("one", &json!({ "command": "true" })).error(409, "conflict");
    assert_eq!(sandbox.read("runs"), "x\n");

    let slow =
        json!({ "command": "echo y >> runs; until [ -e on ]; do sleep 0.01; done; echo end", "wait": 0 });
    let id = keyed("two", &slow).send().expect(202)["execution_id"].clone();
    let attached = keyed("two", &slow).send();
    assert_eq!(attached.expect(202)["execution_id"], id, "a repeat attaches");
    sandbox.write("on", "");
    let tail = format!("executions/{}", id.as_str().unwrap());
    finished(&sandbox, &tail);
    let ended = keyed("two", &slow).send().expect(200);
    assert_eq!((&ended["execution_id"], &ended["stdout"]), (&id, &json!("end\n")), "{ended}");
    assert_eq!(sandbox.read("runs"), "x\ny\n");
    assert_eq!(ran["stdout"].as_str().map(str::trim), Some("1"));

    let theirs = bay.as_tenant("other").sandbox(json!({ "profile": "shell-only" }));
    let other = theirs.post("shell/exec", &count).header("Idempotency-Key", "one").send();
    assert!(other.header("idempotency-replayed").is_none(), "a key is its tenant's own");
}

#[test]
fn executions_outlive_bay_where_their_session_does() {
    let mut bay = Bay::start(Options::default());
    let api = bay.api();
    let sandbox = api.sandbox(json!({ "profile": "shell-only" }));
    let body =
        json!({ "command": "until [ -e go ]; do sleep 0.01; done; echo went", "timeout": 300, "wait": 0 });
    let early = sandbox.post("shell/exec", &body).send().expect(202);
    let tail = format!("executions/{}", early["execution_id"].as_str().unwrap());
    until("it has come to its session", Duration::from_secs(20), || {
        let record = sandbox.call("GET", &tail).send().expect(200);
        record["session_seq"].is_u64().then_some(())
    });
    bay.kill();
    bay.start_again();
    let sandbox = Sandbox::again(&bay.api(), sandbox);
    sandbox.write("go", "");
    let ended = finished(&sandbox, &tail);
    assert_eq!(
        (&ended["status"], &ended["result"]["stdout"]),
        (&json!("succeeded"), &json!("went\n")),
        "{ended}"
    );
}

fn finished(sandbox: &Sandbox, tail: &str) -> Value {
    until("the execution ends", Duration::from_secs(20), || {
        let record = sandbox.call("GET", tail).send().expect(200);
        (record["status"] != "running").then_some(record)
    })
}
