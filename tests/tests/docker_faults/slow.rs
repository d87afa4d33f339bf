//! An engine that takes its time to make a container.

use std::time::{Duration, Instant};

use bay_tests::driver::connect;
use bay_tests::{Bay, Engine, until};
use serde_json::json;

use crate::common::{NOTICED, on};
use crate::proxy::Proxy;

/// What the contract promises of a deletion during a start.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A sandbox whose container is not made before the proxy lets go.
fn held(proxy: &Proxy, bay: &Bay) -> bay_tests::Sandbox {
    let before = proxy.held();
    proxy.hold();
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    until("its container is being made", NOTICED, || (proxy.held() > before).then_some(()));
    sandbox
}

#[test]
fn a_deletion_cancels_a_start_at_once_and_nothing_of_it_is_left() {
    let proxy = Proxy::before(&Engine::host());
    let bay = Bay::start(on(&proxy.host(), &connect()));
    // The runtime's own volume is filled once for all, with a container, too.
    bay.api().sandbox(json!({ "profile": "shell-only" })).unharmed();
    let sandbox = held(&proxy, &bay);
    let locker = format!("bay-locker-{}", sandbox.locker.trim_start_matches("lkr_"));
    let began = Instant::now();
    sandbox.call("DELETE", "").send().expect(204);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    sandbox.call("GET", "").error(404, "not_found");

    // The engine was asked, and makes it all the same.
    proxy.release();
    let containers = bay.containers().expect("a Bay on Docker");
    let engine = Engine::of_tests();
    let settled = || containers.all().is_empty() && !engine.has_volume(&locker);
    // It may be a while before it is made: gone is what stays gone.
    let came_back = || bay_tests::soon(Duration::from_secs(2), || !settled());
    until("it came late, and went", NOTICED, || (settled() && !came_back()).then_some(()));
}

#[test]
fn a_stop_cancels_a_start_at_once_and_the_next_call_starts_anew() {
    let proxy = Proxy::before(&Engine::host());
    let bay = Bay::start(on(&proxy.host(), &connect()));
    bay.api().sandbox(json!({ "profile": "shell-only" })).unharmed();
    let sandbox = held(&proxy, &bay);
    let began = Instant::now();
    let stopped = sandbox.post("stop", &json!({})).send().expect(200);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(stopped["sandbox"]["status"], "idle", "{stopped}");
    proxy.release();
    assert_eq!(sandbox.shell("true")["session_seq"], 2);
    until("only the second container is left", NOTICED, || {
        (bay.containers().expect("a Bay on Docker").all().len() == 1).then_some(())
    });
}

#[test]
fn a_call_waits_its_budget_for_a_slow_start_which_goes_on() {
    let proxy = Proxy::before(&Engine::host());
    let options = on(&proxy.host(), &connect()).config(json!({ "sessions": { "start_wait": "1s" } }));
    let bay = Bay::start(options);
    let sandbox = held(&proxy, &bay);
    let call = sandbox.post("shell/exec", &json!({ "command": "true" }));
    let error = call.clone().error(503, "session_not_ready");
    assert_eq!(error["retryable"], true, "{error}");
    proxy.release();
    assert_eq!(sandbox.ready()["session_seq"], 1);
    assert_eq!(call.send().expect(200)["session_seq"], 1);
}
