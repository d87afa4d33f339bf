//! Parts of a sandbox that die: the kernel, the agent, init.

use std::time::Duration;

use bay_tests::procs::Process;
use bay_tests::{Bay, Options, Sandbox, soon, until};
use serde_json::{Value, json};

#[test]
fn a_killed_kernel_is_an_answer_and_the_next_call_has_a_new_one() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let (sandbox, neighbour) = (api.sandbox(json!({})), api.sandbox(json!({ "profile": "shell-only" })));
    let mut kernel = sandbox.python("x = 1")["kernel_seq"].as_u64().expect("a kernel");
    let deaths = [
        ("itself", json!({ "code": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)" })),
        ("an exit past the interpreter", json!({ "code": "import os\nos._exit(0)" })),
        ("a crash", json!({ "code": "import ctypes\nctypes.string_at(0)" })),
        (
            "a stop",
            json!({ "code": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timeout": 1, "wait": 60 }),
        ),
    ];
    for (how, body) in deaths {
        let died = sandbox.post("python/exec", &body).send().expect(200);
        assert_eq!(died["success"], false, "{how}: {died}");
        assert!(died["error"].as_str().is_some_and(|e| !e.is_empty()), "{how}: {died}");
        neighbour.unharmed();
        let next = sandbox.python("'x' in globals()");
        assert_eq!(
            (&next["success"], next["output"].as_str().map(str::trim)),
            (&json!(true), Some("False")),
            "{how}: {next}"
        );
        let seq = next["kernel_seq"].as_u64().expect("a kernel");
        assert!(seq > kernel, "{how}: kernel {seq} after {kernel}");
        assert_eq!(next["session_seq"], 1, "{how}: the session went too");
        kernel = seq;
        sandbox.python_ok("x = 1");
    }
    // By another process of the same user, between calls.
    let find = "for d in /proc/[0-9]*; do grep -qs ipykernel $d/cmdline && kill -9 ${d#/proc/}; done; true";
    sandbox.shell(find);
    let next = until("a new kernel answers", Duration::from_secs(20), || {
        let ran = sandbox.python("'x' in globals()");
        (ran["success"] == json!(true)).then_some(ran)
    });
    assert!(next["kernel_seq"].as_u64() > Some(kernel), "{next}");
}

#[test]
fn user_code_cannot_end_init_or_agent() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({}));
    sandbox.python_ok("x = 1");
    for attack in [
        "kill -9 -1",
        "kill -TERM -1; kill -STOP -1",
        "kill -9 1",
        "for p in $(seq 1 64); do [ $p = $$ ] || kill -9 $p; done",
        "for p in $(seq 1 64); do [ $p = $$ ] || kill -STOP $p; done",
        "for d in /proc/[0-9]*; do echo 1000 > $d/oom_score_adj; done",
    ] {
        let answer = sandbox.post("shell/exec", &json!({ "command": attack, "timeout": 5 })).send();
        assert_eq!(answer.status, 200, "{attack}: {}", answer.brief());
        let after = sandbox.shell("echo alive");
        assert_eq!(
            (&after["stdout"], &after["session_seq"]),
            (&json!("alive\n"), &json!(1)),
            "{attack}: {after}"
        );
    }
    // The kernel is user code and may have died; it comes back in the same session.
    let ran = until("Python answers", Duration::from_secs(40), || {
        let body = json!({ "code": "1", "timeout": 2, "wait": 60 });
        let answer = sandbox.post("python/exec", &body).send();
        eprintln!("{:?} {}", answer.took, answer.brief());
        (answer.status == 200 && answer.json()["success"] == json!(true)).then(|| answer.json())
    });
    assert_eq!(ran["session_seq"], 1, "{ran}");
}

#[test]
fn an_agent_or_init_killed_from_outside_is_a_new_session_on_the_next_call() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let (sandbox, neighbour) = (api.sandbox(json!({})), api.sandbox(json!({ "profile": "shell-only" })));
    sandbox.write("kept", "k");
    for choose in [agent, init] {
        sandbox.python_ok("x = 1");
        let before = sandbox.show()["session_seq"].as_u64().expect("a number");
        let all = bay.processes_of(&sandbox.locker);
        choose(&all).kill();
        let old: Vec<i32> = all.iter().map(|p| p.pid).collect();
        let mut left = Vec::new();
        let gone = soon(Duration::from_secs(10), || {
            left = bay.processes_of(&sandbox.locker);
            left.retain(|p| old.contains(&p.pid));
            left.is_empty()
        });
        assert!(gone, "outlived it: {left:#?}, of {all:#?}");
        neighbour.unharmed();
        let ran = next_call(&sandbox);
        assert_eq!(ran["stdout"], "k", "{ran}");
        assert_eq!(ran["session_seq"].as_u64(), Some(before + 1), "{ran}");
    }
    // In the middle of a call: an answer, not a hang, and not a made-up success.
    let answer = std::thread::scope(|s| {
        let body = json!({ "command": "touch begun; sleep 600", "timeout": 600 });
        let call = sandbox.post("shell/exec", &body);
        let call = s.spawn(move || call.send());
        until("it runs", Duration::from_secs(10), || (neighbour_sees(&bay, &sandbox, "begun")).then_some(()));
        let all = bay.processes_of(&sandbox.locker);
        init(&all).kill();
        call.join().expect("the call")
    });
    let error = answer.expect(502);
    assert_eq!(
        (&error["error"]["code"], &error["error"]["retryable"]),
        (&json!("runtime_error"), &json!(false)),
        "{error}"
    );
    neighbour.unharmed();
    assert_eq!(next_call(&sandbox)["stdout"], "k");
}

/// A file in a workspace, seen from outside of the sandbox.
fn neighbour_sees(bay: &Bay, sandbox: &Sandbox, file: &str) -> bool {
    bay_tests::leaks::locker_dir(&bay.data_dir(), &sandbox.locker).join(file).exists()
        || sandbox.file(file).send().status == 200
}

fn agent(all: &[Process]) -> &Process {
    // By the name it gives itself: bubblewrap outside has Ship's path among its arguments, too.
    let found = all.iter().find(|p| p.name == "ship-agent");
    found.unwrap_or_else(|| panic!("no agent among {all:#?}"))
}

fn init(all: &[Process]) -> &Process {
    all.iter().find(|p| p.is_init()).unwrap_or_else(|| panic!("no init among {all:#?}"))
}

/// The next call recovers: it may at most be told once that the session has just gone.
#[track_caller]
fn next_call(sandbox: &Sandbox) -> Value {
    let answer = sandbox.post("shell/exec", &json!({ "command": "cat kept" })).send();
    if answer.status == 200 {
        return answer.json();
    }
    assert!([502, 503].contains(&answer.status), "{}", answer.brief());
    sandbox.post("shell/exec", &json!({ "command": "cat kept" })).send().expect(200)
}
