//! Shell commands: real exit codes, signals, process groups.

use std::time::Duration;

use bay_tests::{Bay, Options, Sandbox, form, until};
use serde_json::{Value, json};

#[test]
fn shell_answers_as_the_contract_says() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    answer_shape(&sandbox);
    ends(&sandbox);
    surroundings(&sandbox);
    bounded_output(&sandbox);
    timeouts(&sandbox);
}

fn with(sandbox: &Sandbox, body: Value) -> Value {
    sandbox.post("shell/exec", &body).send().expect(200)
}

fn answer_shape(sandbox: &Sandbox) {
    let command = "echo out; echo err >&2";
    let answer = sandbox.post("shell/exec", &json!({ "command": command, "include_code": true })).send();
    let ran = answer.expect(200);
    let mut keys: Vec<_> = ran.as_object().expect("an object").keys().cloned().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "command",
            "error",
            "execution_id",
            "execution_time_ms",
            "exit_code",
            "output",
            "process_id",
            "session_seq",
            "signal",
            "stderr",
            "stdout",
            "success",
            "truncated"
        ]
    );
    assert_eq!((&ran["success"], &ran["exit_code"], &ran["signal"]), (&json!(true), &json!(0), &Value::Null));
    assert_eq!((&ran["stdout"], &ran["stderr"]), (&json!("out\n"), &json!("err\n")));
    assert_eq!((&ran["output"], &ran["command"]), (&json!("out\nerr\n"), &json!(command)));
    assert_eq!((&ran["truncated"], &ran["session_seq"]), (&json!(false), &json!(1)));
    assert!(ran["process_id"].as_str().is_some_and(|p| !p.is_empty()), "{ran}");
    assert!(form::is_id("exe_", ran["execution_id"].as_str().unwrap()), "{ran}");
    assert_eq!(answer.header("x-execution-id"), ran["execution_id"].as_str());
}

fn ends(sandbox: &Sandbox) {
    let failed = sandbox.shell("exit 3");
    assert_eq!(
        (&failed["success"], &failed["exit_code"], &failed["signal"]),
        (&json!(false), &json!(3), &Value::Null)
    );
    let missing = sandbox.shell("no-such-command-here");
    assert_eq!((&missing["success"], &missing["exit_code"]), (&json!(false), &json!(127)), "{missing}");
    let killed = sandbox.shell("kill -KILL $$");
    assert_eq!((&killed["success"], &killed["exit_code"]), (&json!(false), &Value::Null), "{killed}");
    assert_eq!(killed["signal"], "SIGKILL", "{killed}");
    assert_eq!(sandbox.shell("kill -SEGV $$")["signal"], "SIGSEGV");
    assert_eq!(sandbox.shell("if")["success"], false);
    // Who keeps the output open behind the command's back does not keep the caller waiting.
    let answer = sandbox.post("shell/exec", &json!({ "command": "sleep 600 & echo started" })).send();
    assert_eq!(answer.expect(200)["stdout"], "started\n");
    assert!(answer.took < Duration::from_secs(10), "{:?}", answer.took);
}

fn surroundings(sandbox: &Sandbox) {
    assert_eq!(
        sandbox.shell_ok("id -u; id -g; id -un; pwd; echo $HOME; umask").lines().collect::<Vec<_>>()[..5],
        ["1000", "1000", "shipyard", "/workspace", "/workspace"]
    );
    sandbox.shell_ok(
        "mkdir -p sub/deeper; echo 'echo rc' > .bashrc; cp .bashrc .profile; cp .bashrc .bash_profile",
    );
    let ran = with(
        sandbox,
        json!({ "command": "pwd; echo $A; cat", "cwd": "sub/./deeper/../deeper",
                                    "env": { "A": "b c" }, "stdin": "line\nlast" }),
    );
    assert_eq!(ran["stdout"], "/workspace/sub/deeper\nb c\nline\nlast", "{ran}");
    assert_eq!(with(sandbox, json!({ "command": "cat; echo none" }))["stdout"], "none\n");
    let big = "z".repeat(2 << 20);
    let counted = with(sandbox, json!({ "command": "wc -c", "stdin": big }));
    assert_eq!(counted["stdout"].as_str().unwrap().trim(), (2 << 20).to_string(), "{counted}");
    // Nobody reads it: not an error, not a hang.
    assert_eq!(with(sandbox, json!({ "command": "true", "stdin": big }))["success"], true);
    let nowhere = sandbox.post("shell/exec", &json!({ "command": "pwd", "cwd": "not/there" })).send();
    assert!([400, 404].contains(&nowhere.status), "{}", nowhere.brief());
    let out = sandbox.shell_ok("ln -sfn /etc out; echo made");
    assert_eq!(out, "made");
    sandbox.post("shell/exec", &json!({ "command": "pwd", "cwd": "out" })).error(400, "invalid_path");
    // The environment is constant but for what was asked: nothing of Bay's own.
    let names = sandbox.shell_ok("env | cut -d= -f1 | sort | tr '\\n' ' '");
    for name in names.split_whitespace() {
        assert!(!name.starts_with("BAY_") && !name.starts_with("CARGO") && name != "USER_SECRET", "{names}");
    }
}

fn bounded_output(sandbox: &Sandbox) {
    let ran = sandbox
        .shell("head -c 3145728 /dev/zero | tr '\\0' x; head -c 3145728 /dev/zero | tr '\\0' y >&2; exit 7");
    assert_eq!((&ran["truncated"], &ran["exit_code"]), (&json!(true), &json!(7)));
    for stream in ["stdout", "stderr"] {
        let length = ran[stream].as_str().unwrap().len();
        assert!(length > 0 && length <= 1 << 20, "{stream}: {length}");
    }
    let raw = sandbox.shell("printf 'a\\377b'");
    assert_eq!(raw["stdout"], "a\u{fffd}b", "{raw}");
}

fn timeouts(sandbox: &Sandbox) {
    let command = "sleep 600 & echo $! > pids; (trap '' TERM; echo $BASHPID >> pids; while :; do sleep 1; done) & \
                   echo begun; wait";
    let answer = sandbox.post("shell/exec", &json!({ "command": command, "timeout": 1 })).send();
    let ran = answer.expect(200);
    assert_eq!((&ran["success"], &ran["exit_code"]), (&json!(false), &Value::Null), "{ran}");
    assert!(ran["error"].as_str().is_some_and(|e| e.contains("time")), "{ran}");
    assert_eq!(ran["stdout"], "begun\n", "what it printed before is kept: {ran}");
    assert!(answer.took < Duration::from_secs(10), "{:?}", answer.took);
    let alive = sandbox.shell_ok("for p in $(cat pids); do kill -0 $p 2>/dev/null && echo $p; done; true");
    assert_eq!(alive, "", "the group outlived its timeout");
}

#[test]
fn what_runs_in_the_background_is_listed_read_fed_and_killed() {
    let bay = Bay::start(Options::default().tenant("other"));
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let none = sandbox.call("GET", "shell/processes").send().expect(200);
    assert_eq!(none, json!({ "processes": [] }), "and nothing was started for it");
    assert_eq!(sandbox.show()["status"], "idle");
    sandbox.call("GET", "shell/processes/proc_1").error(404, "not_found");

    let body = json!({ "command": "echo up; read line; echo got $line; sleep 600", "background": true });
    let begun = sandbox.post("shell/exec", &body).send().expect(200);
    assert_eq!((&begun["success"], &begun["exit_code"]), (&json!(true), &Value::Null), "{begun}");
    let id = begun["process_id"].as_str().expect("a process id").to_owned();
    let listed = sandbox.call("GET", "shell/processes").send().expect(200);
    let one = &listed["processes"][0];
    assert_eq!((&one["process_id"], &one["status"]), (&json!(id), &json!("running")), "{listed}");
    assert_eq!(one["execution_id"], begun["execution_id"]);

    let tail = format!("shell/processes/{id}");
    let fed = sandbox.post(&format!("{tail}/stdin"), &json!({ "data": "word\n", "close": true })).send();
    assert_eq!(fed.expect(200), json!({ "process_id": id, "taken": 5, "closed": true }));
    let said = until("it answers", Duration::from_secs(20), || {
        let read = sandbox.call("GET", &tail).query("wait", "1").send().expect(200);
        read["content"].as_str().filter(|c| c.contains("got")).map(|_| read.clone())
    });
    assert_eq!(said["content"], "up\ngot word\n", "{said}");
    let rest =
        sandbox.call("GET", &tail).query("offset", &said["next_offset"].to_string()).send().expect(200);
    assert_eq!((&rest["content"], &rest["eof"]), (&json!(""), &json!(false)), "{rest}");
    sandbox.call("GET", &tail).query("offset", "x").bad_fields(&["offset"]);
    sandbox.call("GET", "shell/processes/..%2Fx").error(404, "not_found");

    let stranger = bay.as_tenant("other");
    let target = |tail: &str| format!("/v1/sandboxes/{}/{tail}", sandbox.id);
    for (method, tail) in [("GET", "shell/processes"), ("GET", &tail), ("DELETE", &tail)] {
        stranger.call(method, &target(tail)).error(404, "not_found");
    }
    let killed = sandbox.call("DELETE", &tail).send().expect(200);
    assert_eq!((&killed["process_id"], &killed["status"]), (&json!(id), &json!("killed")), "{killed}");
}
