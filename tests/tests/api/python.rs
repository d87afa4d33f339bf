//! Python: a real IPython kernel whose state lives across calls.

use std::time::Duration;

use base64::Engine as _;
use bay_tests::{Bay, Options, Sandbox, form, soon, until};
use serde_json::{Value, json};

/// Code that waits until the file `go` shows in the workspace.
const WAIT_FOR_GO: &str = "import os, time\nopen('/workspace/begun', 'w').close()\nwhile not os.path.exists('/workspace/go'): time.sleep(0.01)";

#[test]
fn python_answers_as_the_contract_says() {
    let bay = Bay::any();
    let sandbox = bay.api().sandbox(json!({}));
    answer_shape(&sandbox);
    results_and_images(&sandbox);
    exceptions(&sandbox);
    surroundings(&sandbox);
    bounded_output(&sandbox);
    expectations(&sandbox);
}

#[test]
fn a_call_that_waits_behind_a_long_one_has_all_of_its_time() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({}));
    sandbox.python_ok("import time");
    // Longer than Bay gives a runtime beyond a call's own timeout.
    let long = json!({ "code": "time.sleep(19)", "timeout": 60, "wait": 0 });
    sandbox.post("python/exec", &long).send().expect(202);
    let body = json!({ "code": "print('late')", "timeout": 1, "wait": 60 });
    let late = sandbox.post("python/exec", &body).send().expect(200);
    assert_eq!((&late["success"], &late["output"]), (&json!(true), &json!("late\n")), "{late}");
    assert!(late["queued_ms"].as_u64() > Some(16_000), "{late}");
    let tail = format!("executions/{}", late["execution_id"].as_str().expect("an id"));
    assert_eq!(sandbox.call("GET", &tail).send().expect(200)["status"], "succeeded");
}

#[test]
fn a_timeout_interrupts_and_keeps_the_state_unless_the_interrupt_is_ignored() {
    let bay = Bay::any();
    let sandbox = bay.api().sandbox(json!({}));
    sandbox.python_ok("x = 41");
    let spun = sandbox.post("python/exec", &json!({ "code": "while True: pass", "timeout": 1 })).send();
    let body = spun.expect(200);
    assert_eq!(body["success"], false, "{body}");
    assert!(body["error"].as_str().is_some_and(|e| !e.is_empty()), "{body}");
    assert!(spun.took < Duration::from_secs(6), "{:?}", spun.took);
    let kept = sandbox.python("x + 1");
    assert_eq!((&kept["success"], &kept["kernel_seq"]), (&json!(true), &body["kernel_seq"]), "{kept}");
    assert_eq!(kept["output"].as_str().unwrap().trim(), "42");

    let deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass";
    let ended =
        sandbox.post("python/exec", &json!({ "code": deaf, "timeout": 1, "wait": 60 })).send().expect(200);
    assert_eq!(ended["success"], false, "{ended}");
    let fresh = sandbox.python("'x' in globals()");
    assert_eq!(fresh["output"].as_str().unwrap().trim(), "False", "{fresh}");
    assert_eq!(fresh["kernel_seq"].as_u64(), body["kernel_seq"].as_u64().map(|n| n + 1), "{fresh}");
    assert_eq!(
        ended["kernel_seq"], fresh["kernel_seq"],
        "the answer to a restart carries the new number: {ended}"
    );
}

#[test]
fn calls_queue_in_order_and_past_the_bound_are_busy() {
    let bay = Bay::any();
    let sandbox = bay.api().sandbox(json!({}));
    sandbox.python_ok("done = []");
    let (running, busy) = std::thread::scope(|s| {
        let first = s.spawn(|| sandbox.python(WAIT_FOR_GO));
        let begun = || (sandbox.file("begun").send().status == 200).then_some(());
        until("the first call runs", Duration::from_secs(20), begun);
        let others: Vec<_> = (0..20)
            .map(|n| {
                let call = sandbox.post("python/exec", &json!({ "code": format!("done.append({n})") }));
                s.spawn(move || call.send())
            })
            .collect();
        // 16 wait at most, so of 20 some are turned away at once, while the first still runs.
        until("a call is turned away", Duration::from_secs(20), || {
            others.iter().any(|o| o.is_finished()).then_some(())
        });
        sandbox.write("go", "");
        let first = first.join().expect("the first call");
        assert_eq!(first["success"], true, "{first}");
        let answers: Vec<_> = others.into_iter().map(|o| o.join().expect("a call")).collect();
        let (ok, busy): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
        (ok, busy)
    });
    assert!(!busy.is_empty() && running.len() >= 10, "{} ran, {} were busy", running.len(), busy.len());
    for answer in &busy {
        let body = answer.expect(429);
        assert_eq!(
            (&body["error"]["code"], &body["error"]["retryable"]),
            (&json!("busy"), &json!(true)),
            "{body}"
        );
    }
    assert_eq!(sandbox.python_ok("len(done)"), running.len().to_string());
}

fn answer_shape(sandbox: &Sandbox) {
    let body = json!({ "code": "x = 20\nprint('hi')", "include_code": true });
    let answer = sandbox.post("python/exec", &body).send();
    let ran = answer.expect(200);
    let keys = |v: &Value| {
        let mut keys: Vec<_> = v.as_object().expect("an object").keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(
        keys(&ran),
        [
            "code",
            "data",
            "error",
            "error_detail",
            "execution_id",
            "execution_time_ms",
            "kernel_seq",
            "output",
            "queued_ms",
            "session_seq",
            "success",
            "truncated"
        ]
    );
    assert_eq!(keys(&ran["data"]), ["execution_count", "output"]);
    assert_eq!(keys(&ran["data"]["output"]), ["images", "results", "text"]);
    assert_eq!(ran["data"]["output"], json!({ "text": "hi\n", "images": [], "results": [] }), "{ran}");
    assert_eq!(
        (&ran["success"], &ran["error"], &ran["error_detail"]),
        (&json!(true), &Value::Null, &Value::Null)
    );
    assert_eq!((&ran["output"], &ran["truncated"]), (&json!("hi\n"), &json!(false)), "{ran}");
    assert_eq!(ran["code"], body["code"], "{ran}");
    assert_eq!((&ran["session_seq"], &ran["kernel_seq"]), (&json!(1), &json!(1)), "{ran}");
    assert!(form::is_id("exe_", ran["execution_id"].as_str().unwrap()), "{ran}");
    assert_eq!(answer.header("x-execution-id"), ran["execution_id"].as_str());
    assert!(ran["execution_time_ms"].is_u64() && ran["queued_ms"].is_u64(), "{ran}");
    let next = sandbox.python("x + 22");
    assert_eq!(next["output"].as_str().unwrap().trim(), "42", "{next}");
    assert_eq!(next["code"], Value::Null, "{next}");
    let count = |v: &Value| v["data"]["execution_count"].as_i64().expect("a count");
    assert_eq!(count(&next), count(&ran) + 1);
    assert_eq!(sandbox.python("")["success"], true);
    assert_eq!(sandbox.python_ok("print('grüße, 世界 🚢')"), "grüße, 世界 🚢");
}

fn results_and_images(sandbox: &Sandbox) {
    let ran = sandbox.python("[1, 2]");
    assert_eq!(ran["data"]["output"]["results"][0]["text/plain"], "[1, 2]", "{ran}");
    // The smallest PNG there is.
    let png =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let code = format!(
        "import base64\nfrom IPython.display import Image, display\ndisplay(Image(data=base64.b64decode('{png}')))"
    );
    let shown = sandbox.python(&code);
    let images = shown["data"]["output"]["images"].as_array().expect("images");
    assert_eq!(images.len(), 1, "{shown}");
    let got = images[0]["image/png"].as_str().expect("base64").replace('\n', "");
    let decode = |t: &str| base64::engine::general_purpose::STANDARD.decode(t).expect("base64");
    assert_eq!(decode(&got), decode(png));
    let rich = sandbox.python("from IPython.display import HTML\nHTML('<b>x</b>')");
    assert_eq!(rich["data"]["output"]["results"][0]["text/html"], "<b>x</b>", "{rich}");
    assert_eq!(sandbox.python_ok("import asyncio\nawait asyncio.sleep(0)\nprint('awaited')"), "awaited");
}

fn exceptions(sandbox: &Sandbox) {
    let failed = sandbox.python("print('before')\nz = {}\nz['grüße']");
    assert_eq!((&failed["success"], &failed["output"]), (&json!(false), &json!("before\n")), "{failed}");
    let detail = &failed["error_detail"];
    assert_eq!((&detail["name"], &detail["value"]), (&json!("KeyError"), &json!("'grüße'")), "{failed}");
    assert!(detail["traceback"].as_array().is_some_and(|t| !t.is_empty()), "{failed}");
    let error = failed["error"].as_str().expect("a traceback");
    assert!(error.contains("KeyError") && error.contains("z['grüße']"), "{error}");
    assert!(!failed.to_string().contains("\\u001b"), "colours in {failed}");
    let syntax = sandbox.python("def (");
    assert_eq!(
        (&syntax["success"], &syntax["error_detail"]["name"]),
        (&json!(false), &json!("SyntaxError")),
        "{syntax}"
    );
    let asked = sandbox.python("input('name? ')");
    assert_eq!(asked["success"], false, "there is nobody to answer input(): {asked}");
    let left = sandbox.python("import sys\nsys.exit(3)");
    assert_eq!((&left["success"], &left["kernel_seq"]), (&json!(false), &json!(1)), "{left}");
    assert_eq!(sandbox.python_ok("x"), "20");
}

fn surroundings(sandbox: &Sandbox) {
    let code =
        "import os, sys\nprint(os.getcwd(), os.environ['HOME'], os.getuid(), os.getgid(), os.getgroups())";
    let seen = sandbox.python_ok(code);
    assert!(seen.starts_with("/workspace /workspace 1000 1000 ["), "{seen}");
    // The workspace's own modules can be imported, after everything else: none can stand in for a library's.
    assert_eq!(sandbox.python_ok("'' in sys.path, sys.path[-1]"), "(False, '/workspace')");
    assert_eq!(
        sandbox.python_ok("import ipykernel\n'launched' if ipykernel.__version__ else ''"),
        "'launched'"
    );
    sandbox.python_ok("open('from_python', 'w').write('p')");
    assert_eq!(sandbox.read("from_python"), "p");
    assert_eq!(sandbox.shell_ok("cat from_python; command -v python3 >/dev/null && echo py"), "ppy");
}

fn bounded_output(sandbox: &Sandbox) {
    let ran = sandbox.python("print('x' * (3 << 20))");
    let length = ran["output"].as_str().unwrap().len();
    assert_eq!((&ran["success"], &ran["truncated"]), (&json!(true), &json!(true)), "{length}");
    assert!(length <= 1 << 20, "{length}");
    let many = sandbox.python("for i in range(200_000): print(i)");
    assert_eq!((&many["success"], &many["truncated"]), (&json!(true), &json!(true)));
    assert!(many["output"].as_str().unwrap().starts_with("0\n1\n2\n"));
    let raised = sandbox.python("raise ValueError('y' * (3 << 20))");
    assert_eq!(raised["success"], false);
    assert!(raised.to_string().len() < 6 << 20, "{}", raised.to_string().len());
    assert_eq!(sandbox.python_ok("x"), "20");
}

fn expectations(sandbox: &Sandbox) {
    let mark = json!({ "code": "ran = True" });
    let with = |field: &str| {
        let mut body = mark.clone();
        body[field] = json!(99);
        sandbox.post("python/exec", &body)
    };
    with("expect_session").error(409, "state_lost");
    with("expect_kernel").error(409, "state_lost");
    let kernel = sandbox.python("1")["kernel_seq"].clone();
    let same = json!({ "code": "1", "expect_kernel": kernel });
    assert_eq!(sandbox.post("python/exec", &same).send().expect(200)["success"], true);
    assert_eq!(sandbox.python_ok("'ran' in globals()"), "False");
    let right = json!({ "code": "1", "expect_session": 1 });
    assert_eq!(sandbox.post("python/exec", &right).send().expect(200)["success"], true);
    let stopped = sandbox.post("stop", &json!({})).send().expect(200);
    assert_eq!(stopped["status"], "stopped");
    sandbox.post("python/exec", &right).error(409, "state_lost");
    let fresh = sandbox.python("'x' in globals()");
    assert_eq!(
        (fresh["output"].as_str().unwrap().trim(), &fresh["session_seq"]),
        ("False", &json!(2)),
        "{fresh}"
    );
    assert!(soon(Duration::from_secs(1), || sandbox.show()["session_seq"] == 2));
}
