//! Bay may be killed at any instant and come back: sandboxes run on and are adopted, nothing is lost or leaked.

use std::time::Duration;

use bay_tests::{Bay, Options, Sandbox, soon, until};
use serde_json::{Value, json};

#[test]
fn a_python_variable_outlives_bay_however_it_ends() {
    let mut bay = Bay::start(Options::default());
    let api = bay.api();
    let python = api.sandbox(json!({ "name": "p" }));
    let shell = api.sandbox(json!({ "profile": "shell-only" }));
    let first = python.python("x = 41");
    shell.shell_ok("echo kept > /tmp/outside-the-workspace");
    let before = pids(&bay);
    for killed in [true, false, true] {
        if killed {
            bay.kill();
        } else {
            assert!(bay.terminate().success(), "SIGTERM is an orderly end:\n{}", bay.log());
        }
        assert_eq!(pids(&bay), before, "sandboxes run on without Bay");
        bay.start_again();
        let shown = until("the sandbox is adopted", Duration::from_secs(20), || {
            Some(python.show()).filter(|s| s["status"] == "ready")
        });
        assert_eq!((&shown["session_seq"], &shown["name"]), (&json!(1), &json!("p")), "{shown}");
        let ran = python.python("x = x + 1; x");
        assert_eq!(ran["success"], true, "{ran}");
        assert_eq!((&ran["kernel_seq"], &ran["session_seq"]), (&first["kernel_seq"], &json!(1)), "{ran}");
        assert_eq!(shell.shell_ok("cat /tmp/outside-the-workspace"), "kept");
        assert_eq!(pids(&bay), before, "a restart starts nothing");
    }
    assert_eq!(python.python_ok("x"), "44");
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let mut bay = Bay::start(Options::default());
    let api = bay.api();
    let lazy =
        |n: usize| api.sandbox(json!({ "profile": "shell-only", "start": "lazy", "name": format!("n{n}") }));
    let made: Vec<Sandbox> = (0..8).map(lazy).collect();
    let running = api.sandbox(json!({ "profile": "shell-only" }));
    running.write("f", "acknowledged");
    // One is deleted, one is in the middle of a command, as Bay dies.
    let gone = made[0].id.clone();
    assert_eq!(made[0].call("DELETE", "").send().status, 204);
    let body = json!({ "command": "touch begun; until [ -e go ]; do sleep 0.01; done; echo went > trace", "wait": 1 });
    let early = running.post("shell/exec", &body).send().expect(202);
    let execution = format!("executions/{}", early["execution_id"].as_str().unwrap());
    bay.kill();
    bay.start_again();
    let listed = api.list("/v1/sandboxes");
    let ids: Vec<_> = listed.iter().map(|s| s["id"].as_str().unwrap()).collect();
    for sandbox in &made[1..] {
        assert!(ids.contains(&sandbox.id.as_str()), "{} was lost", sandbox.id);
    }
    assert!(!ids.contains(&gone.as_str()), "{gone} came back");
    assert_eq!(running.read("f"), "acknowledged");
    running.write("go", "");
    until("the command ends", Duration::from_secs(10), || {
        (running.file("trace").send().status == 200).then_some(())
    });
    let record = until("its record ends too", Duration::from_secs(20), || {
        let record = running.call("GET", &execution).send().expect(200);
        (record["status"] != "running").then_some(record)
    });
    assert_eq!(record["status"], "succeeded", "the next Bay asks how it ended: {record}");
}

#[test]
fn a_kill_in_the_middle_of_a_start_or_delete_is_reconciled() {
    let mut bay = Bay::start(Options::default());
    let api = bay.api();
    type Moment = fn(&Bay) -> bool;
    let moments: [(&str, Moment); 4] = [
        ("at once", |_| true),
        ("when something is there to reach it by", |bay| is_made(bay)),
        ("when the first process is there", |bay| !bay.processes().is_empty()),
        ("when init is there", |bay| bay.processes().iter().any(bay_tests::procs::Process::is_init)),
    ];
    for (when, moment) in moments {
        let made = api.sandbox(json!({ "profile": "shell-only", "start": "eager" }));
        soon(Duration::from_secs(10), || moment(&bay));
        bay.kill();
        bay.start_again();
        let ran = until("the sandbox works", Duration::from_secs(30), || {
            let answer = made.post("shell/exec", &json!({ "command": "echo works" })).send();
            (answer.status == 200).then(|| answer.json())
        });
        assert_eq!(ran["stdout"], "works\n", "{when}: {ran}");
        let inits = bay.processes().iter().filter(|p| p.is_init()).count();
        assert_eq!(inits, 1, "{when}: {:#?}", bay.processes());

        let call = made.call("DELETE", "").send_and_leave_unread();
        if when != "at once" {
            soon(Duration::from_secs(2), || bay.processes().is_empty());
        }
        bay.kill();
        drop(call);
        bay.start_again();
        // Either it was deleted, or it was not and still works; then it can be.
        let answer = api.get(&format!("/v1/sandboxes/{}", made.id)).send();
        assert!([200, 404].contains(&answer.status), "{when}: {}", answer.brief());
        if answer.status == 200 {
            made.unharmed();
        }
        let gone = made.call("DELETE", "").send();
        assert_eq!(gone.status, 204, "{when}: {}", gone.brief());
        assert!(
            soon(Duration::from_secs(10), || bay.processes().is_empty()),
            "{when}: {:#?}",
            bay.processes()
        );
    }
}

#[test]
fn a_sandbox_that_died_while_bay_was_away_starts_anew_with_its_files() {
    let mut bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    sandbox.write("f", "kept");
    bay.kill();
    for process in bay.processes() {
        process.kill();
    }
    assert!(soon(Duration::from_secs(10), || bay.processes().is_empty()), "{:#?}", bay.processes());
    bay.start_again();
    let shown = until("Bay knows", Duration::from_secs(10), || {
        Some(sandbox.show()).filter(|s| s["status"] != "ready")
    });
    assert!(["idle", "failed"].contains(&shown["status"].as_str().unwrap()), "{shown}");
    let ran = sandbox.shell("cat f");
    assert_eq!((&ran["stdout"], &ran["session_seq"]), (&json!("kept"), &json!(2)), "{ran}");
}

fn pids(bay: &Bay) -> Value {
    // Helpers of user code come and go; what Bay started stays.
    let mut pids: Vec<_> = bay
        .processes()
        .into_iter()
        .filter(|p| p.cmdline.contains("/.bay/ship") || p.cmdline.contains("ipykernel"))
        .map(|p| p.pid)
        .collect();
    pids.sort_unstable();
    assert!(!pids.is_empty(), "no processes of sandboxes were found");
    json!(pids)
}

/// It has been made, though nothing may run in it yet.
fn is_made(bay: &Bay) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    if let Some(containers) = bay.containers() {
        return !containers.all().is_empty();
    }
    let run = std::fs::read_dir(bay.data_dir().join("run")).into_iter().flatten().flatten();
    run.into_iter().any(|e| {
        e.file_type().is_ok_and(|t| t.is_socket()) && e.path().file_stem().is_none_or(|s| s != "admin")
    })
}
