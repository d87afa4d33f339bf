//! Code that takes all it can.

use std::time::{Duration, Instant};

use bay_tests::config::Profile;
use bay_tests::{Bay, Options, Sandbox, until};
use serde_json::{Value, json};

/// What Bay itself may grow to, whatever a sandbox prints.
const BAY_MEMORY: u64 = 400 << 20;

#[test]
fn a_hundred_megabytes_of_output_are_bounded_and_the_neighbour_is_unharmed() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let (loud, neighbour) = (api.sandbox(json!({})), api.sandbox(json!({ "profile": "shell-only" })));
    loud.ready();
    for (tail, body) in [
        ("shell/exec", json!({ "command": "yes loud | head -c 104857600", "timeout": 60 })),
        ("shell/exec", json!({ "command": "yes loud | head -c 104857600 >&2", "timeout": 60 })),
        (
            "python/exec",
            json!({ "code": "for i in range(100): print('x' * (1 << 20), flush=True)", "timeout": 60 }),
        ),
        ("python/exec", json!({ "code": "'x' * (100 << 20)", "timeout": 60 })),
    ] {
        let answer = std::thread::scope(|s| {
            let call = loud.post(tail, &body).limit(Duration::from_secs(100));
            let loud_one = s.spawn(move || call.send());
            while !loud_one.is_finished() {
                prompt(&neighbour);
            }
            loud_one.join().expect("the loud call")
        });
        let ran = answer.expect(200);
        // Where no cgroup bounds memory, a bound on each process's address space does, and code may meet it first:
        // that is an honest end, too, as long as it is told.
        let out_of_memory = ran["success"] == false
            && ran["error"].as_str().is_some_and(|error| error.contains("MemoryError"));
        assert!(
            ran["truncated"] == true || out_of_memory,
            "{body}: success {}, {}",
            ran["success"],
            ran["error"]
        );
        assert!(answer.body.len() < 5 << 20, "{body}: an answer of {} bytes", answer.body.len());
        assert_eq!(loud.shell_ok("echo fine"), "fine");
        assert!(resident(&bay) < BAY_MEMORY, "Bay takes {} MiB", resident(&bay) >> 20);
    }
    assert_eq!(loud.python_ok("40 + 2"), "42");
}

#[test]
fn a_fork_bomb_stays_in_its_sandbox() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let body = json!({ "profile": "shell-only" });
    let (bomb, neighbour) = (api.sandbox(body.clone()), api.sandbox(body));
    neighbour.ready();
    bomb.ready();
    std::thread::scope(|s| {
        let call = bomb
            .post("shell/exec", &json!({ "command": "bomb() { bomb | bomb & }; bomb; wait", "timeout": 4 }));
        let call = s.spawn(move || call.send());
        while !call.is_finished() {
            prompt(&neighbour);
            assert!(bay.processes().len() < 600, "{} processes", bay.processes().len());
        }
        let answer = call.join().expect("the bomb");
        assert!([200, 429].contains(&answer.status) || answer.status >= 500, "{}", answer.brief());
    });
    neighbour.unharmed();
    // One that leaves its process group, so that no timeout of the call can reach it.
    let escaped = "import os\npid = os.fork()\nif pid == 0:\n  os.setsid()\n  while True:\n    try: os.fork()\n    except OSError: pass\n";
    bomb.write("bomb.py", escaped);
    let answer =
        bomb.post("shell/exec", &json!({ "command": "python3 bomb.py & sleep 1", "timeout": 5 })).send();
    assert!([200, 429].contains(&answer.status) || answer.status >= 500, "{}", answer.brief());
    prompt(&neighbour);
    // Whatever it still does, stopping it works, and afterwards it is as new.
    let stopped = bomb.post("stop", &json!({})).limit(Duration::from_secs(30)).send();
    assert_eq!(stopped.expect(200)["status"], "stopped");
    assert_eq!(bay.processes_of(&bomb.locker).len(), 0, "{:?}", bay.processes_of(&bomb.locker));
    assert_eq!(bomb.shell_ok("echo again"), "again");
    neighbour.unharmed();
}

#[test]
fn memory_and_processor_are_bounded() {
    let small = Profile::python().named("small").container(json!({ "resources": { "memory": "768m" } }));
    let bay = Bay::start(Options::default().profile(small));
    let api = bay.api();
    let (hungry, neighbour) =
        (api.sandbox(json!({ "profile": "small" })), api.sandbox(json!({ "profile": "shell-only" })));
    hungry.ready();
    let ate = hungry.post("python/exec", &json!({ "code": "b = b'x' * (1 << 30)", "timeout": 30 })).send();
    let ate = ate.expect(200);
    assert_eq!(ate["success"], false, "a gibibyte in 768 MiB: {}", ate["output"]);
    neighbour.unharmed();
    works_again(&hungry);
    let shell = hungry.shell("python3 -c \"b = b'x' * (1 << 30)\"");
    assert_eq!(shell["success"], false, "{shell}");
    neighbour.unharmed();
    works_again(&hungry);
    // Two spinning threads and a loop, while the neighbour is asked.
    let spin = "import threading\ndef f():\n  while True: pass\nt = [threading.Thread(target=f, daemon=True) for _ in range(2)]\n[x.start() for x in t]\nwhile True: pass";
    std::thread::scope(|s| {
        let call = hungry.post("python/exec", &json!({ "code": spin, "timeout": 3, "wait": 60 }));
        let call = s.spawn(move || call.send());
        while !call.is_finished() {
            prompt(&neighbour);
        }
        assert_eq!(call.join().expect("the spin").expect(200)["success"], false);
    });
}

/// The neighbour answers, and soon.
#[track_caller]
fn prompt(neighbour: &Sandbox) {
    let began = Instant::now();
    neighbour.unharmed();
    assert!(began.elapsed() < Duration::from_secs(10), "the neighbour waited {:?}", began.elapsed());
}

/// A kernel that was killed is replaced; the first call may be the one that finds out.
#[track_caller]
fn works_again(sandbox: &Sandbox) {
    until("Python works again", Duration::from_secs(30), || {
        let answer = sandbox.post("python/exec", &json!({ "code": "40 + 2" })).send();
        let ran: Value = answer.json();
        (answer.status == 200 && ran["success"] == json!(true)).then_some(())
    });
}

fn resident(bay: &Bay) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bay.pid())).expect("Bay's status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|k| k.parse::<u64>().ok()).expect("a number") << 10
}
