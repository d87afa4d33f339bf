//! Ship under load while its kernel, its shells and Ship itself are killed at random: a call may fail honestly, but
//! an answer is never wrong.
//!
//! Every call carries a number of its own that its answer must show. `BAY_TEST_SEED` repeats what is done (not when
//! the machine does it), `BAY_TEST_SECONDS` says for how long; `cargo xtask soak ship` sets both.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bay_ship_tests::random::{Random, duration};
use bay_ship_tests::{Client, Container, Place, Refusal, isolations};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// In CI, for each isolation.
const USUAL: Duration = Duration::from_secs(6);
/// Callers at once, each over a connection of its own.
const CALLERS: u64 = 6;
/// Seconds that a call may run.
const CALL: u32 = 20;
/// How long a call may take to be answered at all: its own time, a kernel's start, and room for a loaded machine.
const ANSWER: Duration = Duration::from_secs(90);

/// What is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    /// The Python process, from inside, as the user.
    Kernel,
    /// One of the commands that run, with its group.
    Shell,
    /// The agent, from the host: the whole container must end.
    Agent,
}

/// How the calls went.
#[derive(Debug, Default)]
struct Counts {
    right: AtomicU64,
    /// Errors that say so: a kernel that died, a command that was killed, a connection that broke.
    honest: AtomicU64,
    kills: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What became of one call.
enum Outcome {
    Right,
    Honest,
    /// The connection is of no more use.
    Broken,
}

/// Posts; `None` when the connection broke before the whole answer was there.
fn post(client: &mut Client, path: &str, body: &Value) -> Option<Result<Value, Refusal>> {
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nhost: ship\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    match client.raw(head.as_bytes()) {
        Ok(answer) => Some(answer.result()),
        Err(error) => {
            let silent = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            assert!(!silent, "no answer within {ANSWER:?}: {path} {body}");
            None
        }
    }
}

/// A refusal that a caller may get while everything around it dies.
fn may_be_refused(refusal: &Refusal) -> bool {
    matches!(refusal.1.as_str(), "busy" | "runtime_error")
}

fn python(client: &mut Client, nonce: u64) -> Outcome {
    let code =
        format!("import os, time\ntime.sleep({})\nprint({nonce} * 3)\n{nonce}", (nonce % 5) as f64 / 100.0);
    let Some(answer) = post(client, "/ipython/exec", &json!({"code": code, "timeout": CALL})) else {
        return Outcome::Broken;
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(refusal) => {
            assert!(may_be_refused(&refusal), "{refusal:?}");
            return Outcome::Honest;
        }
    };
    if answer["success"] == true {
        assert_eq!(answer["output"], format!("{}\n{nonce}", nonce * 3), "{answer}");
        assert_eq!(answer["error"], Value::Null, "{answer}");
        return Outcome::Right;
    }
    // Whatever it managed to print is its own.
    let output = answer["output"].as_str().unwrap();
    assert!(format!("{}\n{nonce}", nonce * 3).starts_with(output), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{answer}");
    Outcome::Honest
}

fn shell(client: &mut Client, nonce: u64) -> Outcome {
    let code = nonce % 200;
    let command = format!("echo out {nonce}; sleep 0.0{}; echo err {nonce} >&2; exit {code}", nonce % 10);
    let Some(answer) = post(client, "/shell/exec", &json!({"command": command, "timeout": CALL})) else {
        return Outcome::Broken;
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(refusal) => {
            assert!(may_be_refused(&refusal), "{refusal:?}");
            return Outcome::Honest;
        }
    };
    let (out, err) = (format!("out {nonce}\n"), format!("err {nonce}\n"));
    let (stdout, stderr) = (answer["stdout"].as_str().unwrap(), answer["stderr"].as_str().unwrap());
    if answer["exit_code"] == code {
        assert_eq!((stdout, stderr), (&*out, &*err), "{answer}");
        assert_eq!(answer["success"], code == 0, "{answer}");
        return Outcome::Right;
    }
    // Killed: no exit code is made up, and what it printed is its own.
    assert_eq!((&answer["exit_code"], &answer["signal"]), (&Value::Null, &json!("SIGKILL")), "{answer}");
    assert_eq!(answer["success"], false, "{answer}");
    assert!(out.starts_with(stdout) && err.starts_with(stderr), "{answer}");
    Outcome::Honest
}

fn file(client: &mut Client, caller: u64, nonce: u64) -> Outcome {
    let path = format!("chaos/{caller}");
    // Long enough that a torn write would show.
    let content = format!("{nonce} ").repeat(5000);
    for (route, body) in [
        ("/fs/write_file", json!({"path": path, "content": content})),
        ("/fs/read_file", json!({"path": path})),
    ] {
        match post(client, route, &body) {
            None => return Outcome::Broken,
            Some(Err(refusal)) => {
                assert!(may_be_refused(&refusal), "{refusal:?}");
                return Outcome::Honest;
            }
            Some(Ok(answer)) if route == "/fs/read_file" => {
                assert!(answer["content"] == content, "{path} is another")
            }
            Some(Ok(answer)) => assert_eq!(answer["size"], content.len(), "{answer}"),
        }
    }
    Outcome::Right
}

/// Calls until it is told to stop or its container ends.
fn call(container: &Container, caller: u64, mut random: Random, over: &AtomicBool, counts: &Counts) {
    let mut client: Option<Client> = None;
    while !over.load(Ordering::Relaxed) {
        let Some(mut connected) = client.take().or_else(|| container.connect().ok().map(Client::over)) else {
            if container.ended() {
                return;
            }
            std::thread::yield_now();
            continue;
        };
        connected.read_timeout(ANSWER).unwrap();
        let nonce = random.draw() >> 16;
        let outcome = match random.below(3) {
            0 => python(&mut connected, nonce),
            1 => shell(&mut connected, nonce),
            _ => file(&mut connected, caller, nonce),
        };
        match outcome {
            Outcome::Right => count(&counts.right),
            Outcome::Honest => count(&counts.honest),
            Outcome::Broken => {
                // Only the end of the agent breaks a connection.
                bay_ship_tests::wait_for(|| container.ended().then_some(()), "the container to end");
                count(&counts.honest);
                return;
            }
        }
        client = Some(connected);
    }
}

fn kill(container: &Container, victim: Victim) {
    let command = match victim {
        Victim::Kernel => "pkill -9 -f '[i]pykernel_launcher'; true",
        // A command of another caller, found by what it runs; its group is named after it.
        Victim::Shell => "p=$(pgrep -f '[e]cho out' | shuf -n 1); [ -z \"$p\" ] || kill -9 -- -$p; true",
        Victim::Agent => {
            let agent = Pid::from_raw(container.agent().cast_signed()).unwrap();
            kill_process(agent, Signal::KILL).unwrap();
            bay_ship_tests::wait_for(
                || container.ended().then_some(()),
                "the container to end with its agent",
            );
            return;
        }
    };
    let mut client = container.client();
    client.read_timeout(ANSWER).unwrap();
    // It may be refused where all commands that there may be run already.
    let _ = post(&mut client, "/shell/exec", &json!({"command": command, "timeout": CALL}));
}

/// One container until its agent is killed, or until the end.
fn life(container: &Container, random: &mut Random, end: Instant, counts: &Counts) {
    container.client().python_ok("1");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (random, over) = (Random::new(random.draw()), &over);
                scope.spawn(move || call(container, caller, random, over, counts))
            })
            .collect();
        while Instant::now() < end && callers.iter().all(|caller| !caller.is_finished()) {
            std::thread::park_timeout(Duration::from_millis(50 + random.below(700)));
            let victim = match random.below(12) {
                0..5 => Victim::Kernel,
                5..11 => Victim::Shell,
                _ => Victim::Agent,
            };
            kill(container, victim);
            count(&counts.kills);
            if container.ended() {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    if !container.ended() {
        // After all that it is what it was.
        let mut client = container.client();
        bay_ship_tests::wait_for(|| client.python("1").success.then_some(()), "a kernel after the chaos");
        client.shell_ok("true");
    }
}

#[test]
fn nothing_that_dies_ever_makes_an_answer_wrong() {
    let mut random = Random::from_env();
    let isolations = isolations();
    let share =
        duration(USUAL * u32::try_from(isolations.len()).unwrap()) / u32::try_from(isolations.len()).unwrap();
    for isolation in isolations {
        let (end, counts) = (Instant::now() + share, Counts::default());
        let mut lives = 0;
        while Instant::now() < end {
            lives += 1;
            life(&Container::new(isolation), &mut random, end, &counts);
        }
        eprintln!("{isolation:?}: {counts:?} in {lives} containers");
        assert!(counts.right.into_inner() > 0 && counts.kills.into_inner() > 0, "nothing was tried");
    }
}
