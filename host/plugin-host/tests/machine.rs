//! The step machine: operations side by side, deadlines, and who is to blame.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bay_plugin_host::{
    FaultKind, ForwardEnd, HostOptions, Limits, Performer, PlannedRequest, PlannedResponse, Plugin,
    PluginFault, PluginHost, PluginSpec, Target,
};
use common::*;
use serde_json::json;
use tokio::sync::{Barrier, Semaphore};

/// Answers only when as many requests wait as there are operations: it proves that they interleave.
struct Together(Barrier);

#[async_trait]
impl Performer for Together {
    async fn request(&self, request: PlannedRequest) -> Result<PlannedResponse, String> {
        self.0.wait().await;
        let body: serde_json::Value = serde_json::from_slice(&request.body.unwrap()).unwrap();
        let answer = json!({
            "content": "", "path": body["path"], "size": 0, "encoding": "utf-8", "etag": "e",
        });
        Ok(PlannedResponse { status: 200, headers: vec![], body: answer.to_string().into_bytes() })
    }

    async fn forward(&self, _: PlannedRequest) -> Result<ForwardEnd, String> {
        Err("not here".into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interleaved_operations_keep_apart() {
    let ship = adapter("adapter-ship", json!({})).await;
    let runtime = Arc::new(Together(Barrier::new(16)));
    let mut running = Vec::new();
    for n in 0..16 {
        let (ship, runtime) = (ship.clone(), runtime.clone());
        running.push(tokio::spawn(async move {
            let input = json!({ "path": format!("file-{n}") });
            reply(ship.run(call("filesystem", "read_file", input), runtime.as_ref(), soon()).await)
        }));
    }
    for (n, operation) in running.into_iter().enumerate() {
        assert_eq!(operation.await.unwrap()["path"], format!("file-{n}"));
    }
}

#[tokio::test]
async fn a_runtime_that_is_silent_past_the_deadline_is_a_timeout_and_not_the_plugins_fault() {
    let ship = adapter("adapter-ship", json!({})).await;
    let exec = call("python", "exec", json!({ "code": "1", "timeout": 30 }));
    let fault = failure(ship.run(exec, &Silent, within(Duration::from_millis(100))).await);
    assert_eq!(fault.kind, FaultKind::Timeout);
    let download = call("filesystem", "download", json!({ "path": "a" }));
    let fault = failure(ship.run(download, &Silent, within(Duration::from_millis(100))).await);
    assert_eq!(fault.kind, FaultKind::Timeout);
}

#[tokio::test]
async fn a_runtime_that_cannot_be_reached_is_a_runtime_error_that_says_why() {
    let ship = adapter("adapter-ship", json!({})).await;
    let exec = call("python", "exec", json!({ "code": "1", "timeout": 30 }));
    let fault = failure(ship.run(exec, &Canned::new([]), soon()).await);
    assert_eq!(fault.kind, FaultKind::Runtime);
    assert!(fault.message.contains("nobody answers"), "{}", fault.message);
}

/// Waits until told, so that an operation holds its place for as long as a test needs.
struct Held {
    arrived: Semaphore,
    released: Semaphore,
}

#[async_trait]
impl Performer for Held {
    async fn request(&self, _: PlannedRequest) -> Result<PlannedResponse, String> {
        self.arrived.add_permits(1);
        let _leave = self.released.acquire().await.unwrap();
        Ok(PlannedResponse { status: 200, headers: vec![], body: br#"{"status":"ok"}"#.to_vec() })
    }

    async fn forward(&self, _: PlannedRequest) -> Result<ForwardEnd, String> {
        Err("not here".into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_operation_more_than_there_may_be_is_told_so_and_succeeds_later() {
    let dir = tempfile::tempdir().unwrap();
    let options = HostOptions { max_operations: 2, ..HostOptions::new(dir.path().join("c")) };
    let host = PluginHost::new(options).unwrap();
    let spec = PluginSpec::new("adapter-ship", source("adapter-ship"), json!({}));
    let Plugin::Adapter(ship) = host.load(spec).await.unwrap() else { panic!("an adapter") };
    let delete = || call("filesystem", "delete_file", json!({ "path": "a" }));
    let held = Arc::new(Held { arrived: Semaphore::new(0), released: Semaphore::new(0) });
    let running: Vec<_> = (0..2)
        .map(|_| {
            let (ship, held, call) = (ship.clone(), held.clone(), delete());
            tokio::spawn(async move { reply(ship.run(call, held.as_ref(), soon()).await) })
        })
        .collect();
    let both = tokio::time::timeout_at(soon(), held.arrived.acquire_many(2)).await;
    drop(both.unwrap().unwrap());
    let ok = || Canned::json(200, json!({ "status": "ok" }));
    assert_eq!(fault(ship.run(delete(), &ok(), soon()).await), PluginFault::Overloaded);
    held.released.add_permits(2);
    for operation in running {
        operation.await.unwrap();
    }
    assert_eq!(reply(ship.run(delete(), &ok(), soon()).await), json!({ "status": "ok" }));
}

#[tokio::test]
async fn an_answer_larger_than_bay_takes_in_is_the_runtimes_fault() {
    let ship = adapter("adapter-ship", json!({})).await;
    let exec = call("python", "exec", json!({ "code": "1", "timeout": 30 }));
    let runtime = Canned::raw(200, vec![b'x'; (24 << 20) + 1]);
    let fault = failure(ship.run(exec, &runtime, soon()).await);
    assert_eq!(fault.kind, FaultKind::Runtime);
    assert!(fault.message.contains("larger"), "{}", fault.message);
}

#[tokio::test]
async fn a_dropped_call_gives_its_place_back() {
    let dir = tempfile::tempdir().unwrap();
    let host =
        PluginHost::new(HostOptions { max_operations: 1, ..HostOptions::new(dir.path().join("c")) }).unwrap();
    let spec = PluginSpec::new("adapter-ship", source("adapter-ship"), json!({}));
    let Plugin::Adapter(ship) = host.load(spec).await.unwrap() else { panic!("an adapter") };
    for _ in 0..3 {
        let delete = call("filesystem", "delete_file", json!({ "path": "a" }));
        let run = ship.run(delete, &Silent, soon());
        assert!(tokio::time::timeout(Duration::from_millis(50), run).await.is_err());
    }
    let delete = call("filesystem", "delete_file", json!({ "path": "a" }));
    let ended = ship.run(delete, &Canned::json(200, json!({ "status": "ok" })), soon()).await;
    assert_eq!(reply(ended), json!({ "status": "ok" }));
}

/// Answers each of two requests with its path, when both are there.
struct Pair(Barrier);

#[async_trait]
impl Performer for Pair {
    async fn request(&self, request: PlannedRequest) -> Result<PlannedResponse, String> {
        self.0.wait().await;
        Ok(PlannedResponse { status: 200, headers: vec![], body: request.path.concat().into_bytes() })
    }

    async fn forward(&self, _: PlannedRequest) -> Result<ForwardEnd, String> {
        Err("not here".into())
    }
}

#[tokio::test]
async fn requests_of_one_action_run_side_by_side_and_are_answered_in_order() {
    let plugin = adapter("hostile-adapter", json!({ "mode": "pair" })).await;
    let runtime = Pair(Barrier::new(2));
    let answer = reply(plugin.run(call("python", "exec", json!({})), &runtime, soon()).await);
    assert_eq!(answer, json!({ "came": ["first", "second"] }));
}

#[tokio::test]
async fn a_requests_own_timeout_is_an_event_for_the_plugin() {
    let plugin = adapter("hostile-adapter", json!({ "mode": "impatient" })).await;
    let answer = reply(plugin.run(call("python", "exec", json!({})), &Silent, soon()).await);
    assert_eq!(answer, json!({ "came": ["timeout"] }));
}

#[tokio::test]
async fn a_grant_takes_two_keys() {
    let with = |mode: &str, grants: &[&str]| {
        let mut spec = PluginSpec::new("hostile-adapter", source("hostile-adapter"), json!({ "mode": mode }));
        spec.grants = grants.iter().map(|g| (*g).to_owned()).collect();
        spec
    };
    for (spec, performed) in [
        (with("stranger", &["elsewhere"]), true),
        (with("stranger", &[]), false),
        // Allowed, but the manifest does not ask for it.
        (with("unasked", &["unasked"]), false),
    ] {
        let Plugin::Adapter(plugin) = host().load(spec).await.unwrap() else { panic!("an adapter") };
        let runtime = Canned::json(200, json!({}));
        let ended = plugin.run(call("python", "exec", json!({})), &runtime, soon()).await;
        assert_eq!(ended.is_ok(), performed, "{ended:?}");
        assert_eq!(runtime.count(), usize::from(performed));
        if performed {
            assert_eq!(runtime.last().target, Target::Granted("elsewhere".into()));
        }
    }
}

#[tokio::test]
async fn zero_and_unlimited_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = HostOptions::new(dir.path().join("c"));
    let changes: [fn(&mut HostOptions); 9] = [
        |o| o.max_operations = 0,
        |o| o.max_operations = usize::MAX,
        |o| o.limits.memory_bytes = 0,
        |o| o.limits.pure_timeout = Duration::ZERO,
        |o| o.limits.pure_timeout = Duration::MAX,
        |o| o.limits.step_timeout = Duration::ZERO,
        |o| o.limits.max_answer_bytes = 0,
        |o| o.limits.max_steps = 0,
        |o| o.limits.max_requests_per_step = u32::MAX,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut options = good.clone();
        change(&mut options);
        let error = PluginHost::new(options).unwrap_err().to_string();
        assert!(error.contains("must be between"), "{n}: {error}");
    }
    let limits = Limits { max_requests_per_step: 0, ..Limits::default() };
    assert!(PluginHost::new(HostOptions { limits, ..good }).is_err());
}
