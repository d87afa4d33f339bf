//! Being process 1: the orderly end, and who may ask for it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bay_ship_api::init::Isolation;
use serde_json::json;
use support::{Container, Setup, isolations, wait_for};

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Ends the container in order: it must take less than `within`, exit with 0 and leave no process.
fn ends(mut container: Container, within: Duration) {
    let inside = container.inside();
    let began = Instant::now();
    container.terminate();
    assert_eq!(container.exit_code(), Some(0), "{}", container.setup.log());
    let took = began.elapsed();
    assert!(took < within, "it took {took:?}");
    assert!(container.setup.log().contains("told to end"), "{}", container.setup.log());
    for pid in inside {
        wait_for(|| (!lives(pid)).then_some(()), "everything inside to be gone");
    }
}

fn wait_for_file(container: &Container, name: &str) {
    let path = container.setup.workspace().join(name);
    wait_for(|| path.exists().then_some(()), name);
}

#[test]
fn an_idle_container_ends_at_once() {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        client.python_ok("1");
        ends(container, Duration::from_secs(1));
        assert!(client.raw(b"GET /health HTTP/1.1\r\nhost: s\r\n\r\n").is_err(), "closed, not answered");
    }
}

#[test]
fn what_is_under_way_is_told_to_end_and_answered() {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        let call = thread::spawn(move || {
            client.shell("trap 'echo bye; exit 7' TERM; touch ready; while :; do sleep 0.05; done")
        });
        wait_for_file(&container, "ready");
        ends(container, Duration::from_secs(2));
        let answer = call.join().unwrap();
        assert_eq!((answer.stdout.as_str(), answer.exit_code), ("bye\n", Some(7)));
    }
}

#[test]
fn what_does_not_hear_is_killed_and_answered_with_that() {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        let call = thread::spawn(move || {
            client.shell(
                "trap '' TERM HUP; (setsid sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' &)
                 touch ready; while :; do sleep 0.05; done",
            )
        });
        wait_for_file(&container, "ready");
        ends(container, Duration::from_secs(3));
        let answer = call.join().unwrap();
        assert_eq!((answer.signal.as_deref(), answer.exit_code), (Some("SIGKILL"), None));
    }
}

#[test]
fn a_stopped_process_and_a_fork_bomb_do_not_delay_the_end() {
    for isolation in isolations() {
        let mut setup = Setup::new(isolation);
        setup.config.limits.pids = 64;
        setup.config.limits.enforce = true;
        let container = setup.start();
        let mut client = container.client();
        client.post("/shell/exec", &json!({"command": "kill -STOP $$", "background": true})).unwrap();
        let bomb = "trap '' TERM; touch ready; f() { trap '' TERM; f | f & sleep 1; }; f; sleep 1000";
        client.post("/shell/exec", &json!({"command": bomb, "background": true})).unwrap();
        wait_for_file(&container, "ready");
        ends(container, Duration::from_secs(4));
    }
}

#[test]
fn user_code_cannot_ask_for_the_end() {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        client.shell("for s in TERM INT HUP QUIT CHLD KILL STOP; do kill -$s 1; done");
        // With a sender and a code of its own making: struct siginfo is number, errno, code, padding, sender.
        let forge = "import ctypes, os, struct\nc = ctypes.CDLL(None)\n\
                     for code in (-1, 0, -6, 0x80):\n    \
                     info = ctypes.create_string_buffer(struct.pack('iiiiii', 15, 0, code, 0, 0, 0), 128)\n    \
                     c.syscall(129, 1, 15, info)";
        client.python_ok(forge);
        client.shell_ok("true");
        assert_eq!(container.client().get("/health").status, 200);
        assert!(!container.ended());
        // And whoever may, still can.
        ends(container, Duration::from_secs(2));
    }
}

#[test]
fn everything_ends_with_the_nest() {
    if !isolations().contains(&Isolation::NestedPid) {
        return;
    }
    let container = Container::new(Isolation::NestedPid);
    container.client().shell_ok("true");
    let nest = container
        .inside()
        .into_iter()
        .find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "ship-nest")
        })
        .unwrap();
    let nest = rustix::process::Pid::from_raw(nest.cast_signed()).unwrap();
    rustix::process::kill_process(nest, rustix::process::Signal::KILL).unwrap();
    wait_for(|| container.ended().then_some(()), "the container to end");
    // Whether init sees the nest's death first or that of the agent, which notices it too, is a matter of luck.
    let log = container.setup.log();
    assert!(log.contains("the nest ended") || log.contains("the agent ended"), "{log}");
}
