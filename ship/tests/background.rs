//! Background processes: what is known of them, read from them, written to them, and how they end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use std::time::{Duration, Instant};

use bay_ship_api::http::{ProcessInfo, ProcessOutput, ProcessStatus};
use bay_ship_api::init::Isolation;
use serde_json::{Value, json};
use support::{Client, Container, PATIENCE, is_root, isolations, wait_for};

fn both(test: impl Fn(&Container, &mut Client, Isolation)) {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        test(&container, &mut client, isolation);
    }
}

fn start_with(client: &mut Client, mut body: Value) -> String {
    body["background"] = true.into();
    let answer = client.post("/shell/exec", &body).unwrap();
    assert_eq!((&answer["success"], &answer["exit_code"]), (&json!(true), &Value::Null), "{answer}");
    answer["process_id"].as_str().unwrap().to_owned()
}

fn start(client: &mut Client, command: &str) -> String {
    start_with(client, json!({"command": command}))
}

fn read(client: &mut Client, id: &str, query: &str) -> ProcessOutput {
    let answer = client.get(&format!("/shell/processes/{id}?{query}"));
    serde_json::from_value(answer.result().unwrap()).unwrap()
}

fn list(client: &mut Client) -> Vec<ProcessInfo> {
    serde_json::from_value(client.get("/shell/processes").json()["processes"].clone()).unwrap()
}

/// All of a stream from `offset` on, and how much of it was lost.
fn read_on(client: &mut Client, id: &str, stream: &str, mut offset: u64) -> (String, u64) {
    let (mut text, mut lost) = (String::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = read(client, id, &format!("stream={stream}&offset={offset}&wait=5"));
        assert_eq!(output.offset, offset + output.lost);
        (offset, lost) = (output.next_offset, lost + output.lost);
        text.push_str(&output.content);
        if output.eof {
            return (text, lost);
        }
        assert!(Instant::now() < deadline, "no end of {id}");
    }
}

/// Waits for a line on stdout.
fn until_ready(client: &mut Client, id: &str) {
    let output = read(client, id, "wait=30");
    assert!(!output.content.is_empty(), "{output:?}");
}

fn ended(client: &mut Client, id: &str) -> ProcessInfo {
    wait_for(
        || {
            let info = read(client, id, "").process;
            (info.status != ProcessStatus::Running).then_some(info)
        },
        "the process to end",
    )
}

fn stop(client: &mut Client, id: &str) -> ProcessInfo {
    serde_json::from_value(client.delete(&format!("/shell/processes/{id}")).unwrap()).unwrap()
}

fn missing(id: &str, client: &mut Client) {
    let refused = client.get(&format!("/shell/processes/{id}")).result().unwrap_err();
    assert_eq!(refused, (404, "not_found".into()), "{id}");
}

#[test]
fn a_start_answers_at_once_and_the_end_is_told_as_it_was() {
    both(|_, client, _| {
        let body = json!({"command": "echo $$ $WHO; pwd; sleep 0.2; exit 3", "background": true,
                          "env": {"WHO": "me"}, "cwd": "."})
        .to_string();
        let head = format!(
            "POST /shell/exec HTTP/1.1\r\nhost: s\r\nx-execution-id: exe_7\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = client.raw(head.as_bytes()).unwrap().result().unwrap();
        assert_eq!((&answer["execution_id"], &answer["exit_code"]), (&json!("exe_7"), &Value::Null));
        let id = answer["process_id"].as_str().unwrap().to_owned();
        let running = list(client).remove(0);
        assert_eq!((running.status, running.ended_at.as_ref()), (ProcessStatus::Running, None));
        let (text, lost) = read_on(client, &id, "stdout", 0);
        assert_eq!((text, lost), (format!("{} me\n/workspace\n", running.pid.unwrap()), 0));
        let info = ended(client, &id);
        assert_eq!(
            (info.status, info.exit_code, info.signal.as_deref()),
            (ProcessStatus::Failed, Some(3), None)
        );
        assert_eq!(info.execution_id.as_deref(), Some("exe_7"));
        assert!(info.ended_at.unwrap() > info.started_at);

        let id = start(client, "echo fine; echo not >&2");
        assert_eq!(ended(client, &id).status, ProcessStatus::Completed);
        assert_eq!(read_on(client, &id, "stderr", 0).0, "not\n");
        let id = start(client, "kill -SEGV $$");
        let info = ended(client, &id);
        assert_eq!((info.status, info.exit_code), (ProcessStatus::Failed, None));
        assert_eq!(info.signal.as_deref(), Some("SIGSEGV"));
        for id in ["proc_99", "proc_", "proc_01", "proc_+1", "x", "proc_99999999999999999999"] {
            missing(id, client);
        }
    });
}

#[test]
fn a_timeout_ends_a_background_process_only_where_one_is_given() {
    both(|_, client, _| {
        let id = start_with(client, json!({"command": "sleep 1000", "timeout": 1}));
        let info = ended(client, &id);
        assert_eq!((info.status, info.timed_out, info.exit_code), (ProcessStatus::Killed, true, None));
        assert_eq!(info.signal.as_deref(), Some("SIGTERM"));
        let refused =
            client.post("/shell/exec", &json!({"command": "true", "background": true, "timeout": 0}));
        assert_eq!(refused.unwrap_err(), (400, "validation_error".into()));
        // The foreground has a default of its own.
        assert_eq!(client.shell_with(&json!({"command": "echo hi"})).stdout, "hi\n");
    });
}

#[test]
fn output_is_resumed_by_offset_and_never_splits_a_character() {
    both(|_, client, _| {
        let id = start(client, "printf 'a\\342\\230'; read x; printf '\\203b'; read x; printf '\\377'");
        let first = read(client, &id, "wait=30");
        assert_eq!((first.content.as_str(), first.next_offset, first.eof), ("a", 1, false));
        let began = Instant::now();
        let quiet = read(client, &id, "offset=1&wait=1");
        assert_eq!((quiet.content.as_str(), quiet.next_offset), ("", 1));
        assert!(began.elapsed() >= Duration::from_secs(1));
        let raw = read(client, &id, "offset=1&encoding=base64");
        assert_eq!((raw.content.as_str(), raw.encoding.as_str()), ("4pg=", "base64"));
        let path = format!("/shell/processes/{id}/stdin");
        client.post(&path, &json!({"data": "\n"})).unwrap();
        let next = read(client, &id, "offset=1&wait=30");
        assert_eq!((next.content.as_str(), next.next_offset), ("☃b", 5));
        client.post(&path, &json!({"data": "Cg==", "encoding": "base64"})).unwrap();
        assert_eq!(read_on(client, &id, "stdout", 5), ("\u{fffd}".into(), 0));
        for query in
            ["stream=both", "offset=7", "offset=-1", "limit=3", "limit=999999999", "wait=31", "encoding=x"]
        {
            let refused = client.get(&format!("/shell/processes/{id}?{query}")).result().unwrap_err();
            assert_eq!(refused, (400, "validation_error".into()), "{query}");
        }
    });
}

#[test]
fn stdin_stays_open_until_it_is_closed_and_a_process_that_never_reads_holds_nobody() {
    both(|_, client, _| {
        let id = start(client, "cat; echo over");
        let path = format!("/shell/processes/{id}/stdin");
        let answer = client.post(&path, &json!({"data": "one\n"})).unwrap();
        assert_eq!((&answer["taken"], &answer["closed"]), (&json!(4), &json!(false)));
        client.post(&path, &json!({"data": "two\n", "close": true})).unwrap();
        assert_eq!(read_on(client, &id, "stdout", 0).0, "one\ntwo\nover\n");
        assert_eq!(client.post(&path, &json!({"data": "x"})).unwrap_err(), (409, "conflict".into()));

        let id = start_with(client, json!({"command": "cat", "stdin": "all there is"}));
        assert_eq!(read_on(client, &id, "stdout", 0).0, "all there is");

        let deaf = start(client, "sleep 1000");
        let path = format!("/shell/processes/{deaf}/stdin");
        let body = json!({"data": "x".repeat(300_000)}).to_string();
        let began = Instant::now();
        let answer = client.post_bytes(&path, body.as_bytes());
        assert_eq!(answer.status, 429);
        let taken = answer.json()["error"]["details"]["taken"].as_u64().unwrap();
        assert!((4096..300_000).contains(&taken), "{taken}");
        assert!(began.elapsed() < Duration::from_secs(10));
        let refused = client.post(&path, &json!({"data": "x".repeat((1 << 20) + 1)})).unwrap_err();
        assert_eq!(refused, (413, "payload_too_large".into()));
        assert_eq!(stop(client, &deaf).status, ProcessStatus::Killed);
        assert_eq!(client.post(&path, &json!({"data": "x"})).unwrap_err(), (409, "conflict".into()));
    });
}

#[test]
fn a_gibibyte_written_at_once_neither_grows_the_agent_nor_stops_the_writer() {
    both(|container, client, _| {
        let size = 1u64 << 30;
        let id = start(client, &format!("head -c {size} /dev/zero; echo end"));
        // Others are served meanwhile.
        client.shell_ok("true");
        let info = ended(client, &id);
        assert_eq!(info.status, ProcessStatus::Completed);
        let first = read(client, &id, "");
        assert_eq!((first.offset, first.lost), (first.lost, first.lost));
        assert!(first.lost > size - (1 << 20) - 16, "{}", first.lost);
        let tail = read(client, &id, &format!("offset={}", size - 3));
        assert_eq!((tail.content.as_str(), tail.next_offset, tail.lost), ("\0\0\0end\n", size + 4, 0));
        assert!(tail.eof);
        let peak = container.kib(container.agent(), "VmHWM");
        assert!(peak < 32 * 1024, "the agent grew to {peak} KiB");
    });
}

#[test]
fn sixty_loud_processes_share_a_bounded_memory() {
    both(|container, client, _| {
        let before = container.kib(container.agent(), "VmRSS");
        let ids: Vec<String> =
            (0..60).map(|_| start(client, "head -c 3000000 /dev/zero | tr '\\0' x")).collect();
        for id in &ids {
            assert_eq!(ended(client, id).status, ProcessStatus::Completed);
        }
        let kept: u64 = ids.iter().map(|id| 3_000_000 - read(client, id, "").lost).sum();
        assert!((12 << 20..=16 << 20).contains(&kept), "{kept}");
        let now = container.kib(container.agent(), "VmRSS");
        assert!(now < before + 24 * 1024, "from {before} to {now} KiB");
    });
}

#[test]
fn one_that_ignores_term_is_killed_and_a_delete_is_idempotent() {
    both(|_, client, _| {
        let id = start(client, "trap '' TERM; echo ready; while :; do sleep 0.1; done");
        until_ready(client, &id);
        let began = Instant::now();
        let info = stop(client, &id);
        assert!(began.elapsed() >= Duration::from_secs(2));
        assert_eq!((info.status, info.exit_code), (ProcessStatus::Killed, None));
        assert_eq!(info.signal.as_deref(), Some("SIGKILL"));
        assert!(info.ended_at.is_some());
        assert_eq!(read(client, &id, "").process, info, "kept, so that its output can be read");
        assert_eq!(stop(client, &id), info);
        missing(&id, client);
        assert_eq!(client.delete(&format!("/shell/processes/{id}")).unwrap_err(), (404, "not_found".into()));

        let id = start(client, "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done");
        until_ready(client, &id);
        let info = stop(client, &id);
        assert_eq!((info.status, info.exit_code), (ProcessStatus::Killed, Some(5)));
        assert_eq!(read(client, &id, "offset=6").content, "bye\n");
    });
}

#[test]
fn one_that_closes_its_output_is_still_running() {
    both(|_, client, _| {
        let id = start(client, "exec >&- 2>&-; exec sleep 1000");
        let output = read(client, &id, "wait=30");
        assert!(output.eof && output.process.status == ProcessStatus::Running, "{output:?}");
        assert_eq!(stop(client, &id).signal.as_deref(), Some("SIGTERM"));
    });
}

#[test]
fn a_delete_finds_what_left_the_session_by_its_mark() {
    both(|container, client, isolation| {
        let id = start(
            client,
            "(setsid sh -c 'echo $$ > hidden; exec sleep 1000' >/dev/null 2>&1 &)
             while [ ! -s hidden ]; do sleep 0.01; done; echo ready; sleep 1000",
        );
        until_ready(client, &id);
        let hidden = std::fs::read_to_string(container.setup.workspace().join("hidden")).unwrap();
        let lives = format!("! grep -q '^State:.[ZX]' /proc/{}/status 2>&1", hidden.trim());
        let lives = format!("[ -e /proc/{} ] && {lives}", hidden.trim());
        assert!(client.shell(&lives).success);
        assert_eq!(stop(client, &id).status, ProcessStatus::Killed);
        match isolation {
            Isolation::TwoUid => {
                wait_for(|| (!client.shell(&lives).success).then_some(()), "the hidden one to end")
            }
            // It left its session and its parents: only the end of the container ends it, as the README says.
            Isolation::NestedPid => assert!(client.shell(&lives).success),
        }
    });
}

#[test]
fn the_number_of_running_processes_is_bounded() {
    both(|_, client, _| {
        let ids: Vec<String> = (0..64).map(|_| start(client, "exec sleep 1000")).collect();
        let one_more = json!({"command": "true", "background": true});
        assert_eq!(client.post("/shell/exec", &one_more).unwrap_err(), (429, "busy".into()));
        assert_eq!(client.get("/stat").json()["processes"]["background"], 64);
        client.shell_ok("true");
        stop(client, &ids[0]);
        wait_for(|| client.post("/shell/exec", &one_more).ok(), "room for one more");
    });
}

#[test]
fn five_hundred_processes_leave_nothing_behind() {
    both(|container, client, _| {
        client.python_ok("1");
        let stat = |client: &mut Client| client.get("/stat").json();
        ended_all(client, 100);
        let before = stat(client);
        ended_all(client, 500);
        let after = wait_for(
            || Some(stat(client)).filter(|now| now["agent"]["fds"] == before["agent"]["fds"]),
            "the descriptors to be as before",
        );
        assert_eq!(after["agent"]["threads"], before["agent"]["threads"]);
        let rss = |stat: &Value| stat["agent"]["rss_kb"].as_u64().unwrap();
        assert!(rss(&after) < rss(&before) + 2048, "{before} {after}");
        assert_eq!(list(client).len(), 64);
        assert!(after["workspace"]["total_bytes"].as_u64() > after["workspace"]["free_bytes"].as_u64());
        assert!(after["uptime_ms"].as_u64().unwrap() > 0);
        // Nobody but root may look whether that is true.
        if is_root() {
            let seen = std::fs::read_dir(format!("/proc/{}/fd", container.agent())).unwrap().count() as u64;
            assert_eq!(Some(seen), after["agent"]["fds"].as_u64());
        }
    });
}

/// Starts that many one after the other, and sees each end.
fn ended_all(client: &mut Client, count: usize) {
    for turn in 0..count {
        let id = start(client, &format!("echo {turn}"));
        assert_eq!(read_on(client, &id, "stdout", 0).0, format!("{turn}\n"));
        assert_eq!(ended(client, &id).status, ProcessStatus::Completed);
    }
}

#[test]
fn ten_thousand_orphans_are_reaped() {
    both(|container, client, _| {
        // A hundred parents with a hundred dead children each, which all pass to process 1 when the parent ends.
        let code = "import os\nfor _ in range(100):\n    if (pid := os.fork()) == 0:\n        \
                    for _ in range(100):\n            if os.fork() == 0: os._exit(0)\n        \
                    os._exit(0)\n    os.waitpid(pid, 0)\nprint('done')";
        let id = start_with(client, json!({"command": format!("exec python3 -S -c \"{code}\"")}));
        let (text, _) = read_on(client, &id, "stdout", 0);
        assert_eq!(text, "done\n");
        wait_for(
            || {
                let dead = |pid: &u32| {
                    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
                };
                (!container.inside().iter().any(dead)).then_some(())
            },
            "the dead to be reaped",
        );
        client.shell_ok("true");
    });
}
