//! Every way a plugin can misbehave ends as a typed error, in time, and hurts nobody else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::time::{Duration, Instant};

use bay_plugin_host::{LoadError, PluginFault, Verdict};
use common::*;
use serde_json::json;

/// No bound of these tests is over a second; the machine may be busy.
const IN_TIME: Duration = Duration::from_secs(10);

async fn mode_of_rules(mode: &str) -> PluginFault {
    let plugin = rules("hostile-rules", json!({ "mode": mode })).await;
    let started = Instant::now();
    let fault = fault(plugin.admit(&admission("sandbox.create", json!({}))).await);
    assert!(started.elapsed() < IN_TIME, "{mode} took {:?}", started.elapsed());
    fault
}

async fn mode_of_router(mode: &str) -> PluginFault {
    let plugin = router("hostile-router", json!({ "mode": mode })).await;
    let started = Instant::now();
    let request =
        route_request("python", vec![container("ship", &["python"]), container("web", &["browser"])]);
    let fault = fault(plugin.route(&request).await);
    assert!(started.elapsed() < IN_TIME, "{mode} took {:?}", started.elapsed());
    fault
}

async fn mode_of_adapter(mode: &str, operation: &str) -> PluginFault {
    let plugin = adapter("hostile-adapter", json!({ "mode": mode })).await;
    let started = Instant::now();
    let performer = Canned::ok();
    let call = match operation {
        "download" => call("filesystem", "download", json!({})),
        _ => call("python", "exec", json!({})),
    };
    let fault = fault(plugin.run(call, &performer, within(Duration::from_secs(2))).await);
    assert!(started.elapsed() < IN_TIME, "{mode} took {:?}", started.elapsed());
    fault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_misbehave_end_as_typed_faults() {
    for (mode, word) in [
        ("trap", "trap"),
        ("recurse", "trap"),
        ("spin", "deadline"),
        ("block", "deadline"),
        ("alloc", "memory"),
        ("huge", "output"),
        ("large", "output"),
        ("nonsense", "contract"),
        ("deep", "contract"),
        ("not-an-object", "contract"),
    ] {
        let fault = mode_of_rules(mode).await;
        assert_eq!(fault.word(), word, "{mode}: {fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_that_misbehave_end_as_typed_faults() {
    for (mode, word) in [
        ("trap", "trap"),
        ("spin", "deadline"),
        ("block", "deadline"),
        ("alloc", "memory"),
        ("huge", "output"),
        ("large", "output"),
        ("stranger", "contract"),
        ("other-adapter", "contract"),
        ("incapable", "contract"),
        ("zero-timeout", "contract"),
        ("retries", "contract"),
    ] {
        let fault = mode_of_router(mode).await;
        assert_eq!(fault.word(), word, "{mode}: {fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adapters_that_misbehave_end_as_typed_faults() {
    for (mode, word) in [
        ("trap", "trap"),
        ("trap-later", "trap"),
        ("recurse", "trap"),
        ("spin", "deadline"),
        ("spin-later", "deadline"),
        ("block", "deadline"),
        ("alloc", "memory"),
        ("alloc-later", "memory"),
        ("huge", "output"),
        ("large", "output"),
        ("many", "output"),
        ("nonsense", "contract"),
        ("deep", "contract"),
        ("sleep", "steps"),
        ("sleep-long", "deadline"),
        ("ask-forever", "steps"),
        ("flood", "contract"),
        ("no-requests", "contract"),
        ("forward", "contract"),
        ("stranger", "contract"),
        ("unasked", "contract"),
        ("method", "contract"),
        ("dotdot", "contract"),
        ("empty-segment", "contract"),
        ("authorization", "contract"),
        ("host", "contract"),
        ("upgrade", "contract"),
        ("bay-header", "contract"),
        ("split", "contract"),
        ("zero-timeout", "contract"),
        ("bad-fault", "contract"),
        ("bad-details", "contract"),
    ] {
        let fault = mode_of_adapter(mode, "exec").await;
        assert_eq!(fault.word(), word, "{mode}: {fault}");
    }
}

#[tokio::test]
async fn a_forward_happens_once_with_or_without_a_body() {
    let fault = mode_of_adapter("forward-body", "download").await;
    assert!(fault.to_string().contains("second"), "{fault}");
    // The first ends with an error event; the second is one too many.
    let fault = mode_of_adapter("forward", "download").await;
    assert!(fault.to_string().contains("second"), "{fault}");
}

#[tokio::test]
async fn an_unknown_operation_is_not_run() {
    let plugin = adapter("adapter-ship", json!({})).await;
    let performer = Canned::ok();
    let ended = plugin.run(call("python", "explode", json!({})), &performer, soon()).await;
    assert_eq!(fault(ended).word(), "contract");
    assert_eq!(performer.count(), 0);
}

#[tokio::test]
async fn nothing_that_was_refused_was_performed() {
    for mode in ["stranger", "authorization", "dotdot", "flood", "split"] {
        let plugin = adapter("hostile-adapter", json!({ "mode": mode })).await;
        let performer = Canned::ok();
        let _ = plugin.run(call("python", "exec", json!({})), &performer, soon()).await;
        assert_eq!(performer.count(), 0, "{mode}");
    }
}

#[tokio::test]
async fn a_denial_is_cut_to_size_and_cleaned() {
    let plugin = rules("hostile-rules", json!({ "mode": "long-reason" })).await;
    let verdict = plugin.admit(&admission("sandbox.create", json!({}))).await.unwrap();
    let Verdict::Deny { reason } = verdict else { panic!("{verdict:?}") };
    assert!(reason.len() <= 4096 && reason.starts_with("no[31mooo"), "{}", &reason[..20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_describes_itself_wrongly_is_not_loaded() {
    for (mode, words) in [
        ("bad-name", "is no name"),
        ("bad-schema", "schema does not compile"),
        ("schema-nonsense", "is not JSON"),
        ("schema-not-object", "not of type object"),
        ("schema-file", "refers to `file:///etc/passwd`"),
        ("schema-default", "its own default of `x` does not fit"),
        ("bad-trait", "trait `root`"),
        ("twice", "stands there twice"),
        ("bad-grant", "is no name of a grant"),
        ("empty", "no capability"),
        ("describe-trap", "trapped"),
        ("describe-spin", "ran past its deadline"),
        ("describe-huge", "answered more than it may"),
    ] {
        let error = load("hostile-adapter", json!({ "mode": mode })).await.unwrap_err().to_string();
        assert!(error.contains(words), "{mode}: {error}");
        assert!(error.contains("hostile-adapter"), "{mode}: {error}");
    }
}

#[tokio::test]
async fn a_refused_configuration_says_what_the_plugin_said() {
    let error = load("hostile-rules", json!({ "mode": "refuse-config" })).await.unwrap_err();
    assert!(matches!(error, LoadError::Config { .. }), "{error}");
    assert!(error.to_string().contains("not with this configuration"), "{error}");
    let error = load("rules-default", json!({ "deny_action": [] })).await.unwrap_err().to_string();
    assert!(error.contains("deny_action") && error.contains("rules-default"), "{error}");
    let error = load("adapter-ship", json!({ "speed": "high" })).await.unwrap_err().to_string();
    assert!(error.contains("speed"), "{error}");
    let error = load("router-default", json!([1])).await.unwrap_err().to_string();
    assert!(error.contains("not a table"), "{error}");
}

/// More spinners than cores; the median of calls beside them stays far below a spinner's deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spinning_plugins_do_not_stop_other_calls() {
    let spinner = rules("hostile-rules", json!({ "mode": "spin" })).await;
    let adapter_spinner = adapter("hostile-adapter", json!({ "mode": "spin-later" })).await;
    let honest = rules("rules-default", json!({})).await;
    let ship = adapter("adapter-ship", json!({})).await;
    let mut spinners = Vec::new();
    for _ in 0..2 {
        let spinner = spinner.clone();
        spinners.push(tokio::spawn(async move { fault(spinner.admit(&admission("x", json!({}))).await) }));
        let spinner = adapter_spinner.clone();
        spinners.push(tokio::spawn(async move {
            fault(spinner.run(call("python", "exec", json!({})), &Canned::ok(), soon()).await)
        }));
    }
    let beside = tokio::spawn(async move {
        let mut times = Vec::new();
        while times.len() < 20 {
            let started = Instant::now();
            let verdict = honest.admit(&admission("capability.python.exec", json!({}))).await.unwrap();
            assert_eq!(verdict, Verdict::Allow);
            let performer = Canned::json(200, json!({ "status": "ok" }));
            let ended =
                ship.run(call("filesystem", "delete_file", json!({ "path": "a" })), &performer, soon());
            assert_eq!(reply(ended.await), json!({ "status": "ok" }));
            times.push(started.elapsed());
        }
        times.sort();
        times[times.len() / 2]
    });
    let median = beside.await.unwrap();
    for spinner in spinners {
        assert_eq!(spinner.await.unwrap(), PluginFault::Deadline);
    }
    assert!(median < Duration::from_millis(200), "the median call took {median:?} beside spinners");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_every_fault_the_same_plugins_next_call_is_fresh() {
    let plugin = adapter("hostile-adapter", json!({ "mode": "trap" })).await;
    for _ in 0..50 {
        let ended = plugin.run(call("python", "exec", json!({})), &Canned::ok(), soon()).await;
        assert_eq!(fault(ended).word(), "trap");
    }
    let behaves = adapter("hostile-adapter", json!({})).await;
    assert_eq!(reply(behaves.run(call("python", "exec", json!({})), &Canned::ok(), soon()).await), json!({}));
}
