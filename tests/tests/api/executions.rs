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

fn finished(sandbox: &Sandbox, tail: &str) -> Value {
    until("the execution ends", Duration::from_secs(20), || {
        let record = sandbox.call("GET", tail).send().expect(200);
        (record["status"] != "running").then_some(record)
    })
}
