//! What a sandbox is on the engine, from its first start to its end.

use std::time::Duration;

use bay_tests::{Bay, Options, Sandbox, soon};
use serde_json::{Value, json};

/// The sandbox's containers, as the engine shows each.
fn containers(bay: &Bay) -> Vec<Value> {
    let containers = bay.containers().expect("on Docker");
    let shown =
        |c: &Value| containers.engine.get(&format!("/containers/{}/json", c["Id"].as_str().expect("an id")));
    containers.all().iter().map(shown).collect()
}

/// The volume at `/workspace`.
fn locker(container: &Value) -> String {
    let mounts = container["Mounts"].as_array().expect("mounts");
    let mount = mounts.iter().find(|m| m["Destination"] == "/workspace").expect("a workspace");
    assert_eq!((&mount["Type"], &mount["RW"]), (&json!("volume"), &json!(true)), "{mount}");
    mount["Name"].as_str().expect("a name").to_owned()
}

fn stop(sandbox: &Sandbox) {
    assert_eq!(sandbox.post("stop", &json!({})).send().expect(200)["status"], "stopped");
}

#[test]
fn a_sandbox_is_one_container_and_its_locker_a_volume_that_outlives_it() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let engine = bay.containers().expect("on Docker").engine;
    let sandbox = api.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    assert!(containers(&bay).is_empty(), "a lazy sandbox has none");
    sandbox.write("kept", "k");
    sandbox.shell_ok("echo lost > /tmp/lost");
    let first = containers(&bay);
    assert_eq!(first.len(), 1);
    let volume = locker(&first[0]);
    assert!(volume.starts_with("bay-locker-"), "{volume}");
    let shown = api.get(&format!("/v1/sandboxes/{}", sandbox.id)).query("probe", "true").send().expect(200);
    assert_eq!(
        (&shown["status"], &shown["containers"][0]["healthy"]),
        (&json!("ready"), &json!(true)),
        "{shown}"
    );

    stop(&sandbox);
    assert!(containers(&bay).is_empty(), "a stop removes the container: {:?}", containers(&bay));
    assert!(engine.has_volume(&volume), "and keeps the locker");
    assert_eq!(sandbox.shell_ok("cat kept; cat /tmp/lost 2>/dev/null || echo gone"), "kgone");
    let second = containers(&bay);
    assert_eq!((second.len(), locker(&second[0])), (1, volume.clone()));
    assert_ne!(second[0]["Name"], first[0]["Name"], "a session's name is its own");

    assert_eq!(sandbox.call("DELETE", "").send().status, 204);
    let gone = || !engine.has_volume(&volume) && containers(&bay).is_empty();
    assert!(soon(Duration::from_secs(10), gone), "a delete leaves nothing");
}

#[test]
fn a_sandbox_that_ran_when_bay_was_killed_is_deleted_by_the_next_bay() {
    let mut bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only", "start": "wait" }));
    let before: Vec<Value> = containers(&bay).iter().map(|c| c["Id"].clone()).collect();
    bay.kill();
    bay.start_again();
    sandbox.unharmed();
    let after: Vec<Value> = containers(&bay).iter().map(|c| c["Id"].clone()).collect();
    assert_eq!(after, before, "it is adopted, not started anew");
    assert_eq!(sandbox.call("DELETE", "").send().status, 204);
    assert!(soon(Duration::from_secs(10), || containers(&bay).is_empty()), "{:?}", containers(&bay));
}

#[test]
fn what_a_sandbox_may_use_is_what_its_profile_says() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only", "start": "wait" }));
    let all = containers(&bay);
    let host = &all[0]["HostConfig"];
    assert_eq!(host["Memory"], json!(1_u64 << 30), "{host}");
    assert_eq!((&host["PidsLimit"], &host["NanoCpus"]), (&json!(128), &json!(1_000_000_000_u64)), "{host}");
    assert_eq!(host["MemorySwap"], host["Memory"], "no swap on top: {host}");
    // What it says on its standard output is bounded too, whoever says it.
    let log = &host["LogConfig"]["Config"];
    assert!(log["max-size"].is_string(), "{host}");
    sandbox.unharmed();
}
