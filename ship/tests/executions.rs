//! Executions as streams, records and output: begun, followed, resumed, cancelled, left alone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use std::time::{Duration, Instant};

use bay_ship_api::init::Isolation;
use serde_json::{Value, json};
use support::client::{Event, Events, field};
use support::{Client, Container, Setup, isolations, wait_for};

fn both(test: impl Fn(&Container, &mut Client, Isolation)) {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        test(&container, &mut client, isolation);
    }
}

fn post(path: &str, id: &str, accept: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: ship\r\ncontent-type: application/json\r\naccept: {accept}\r\n\
         x-execution-id: {id}\r\nx-session-seq: 7\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn stream(container: &Container, path: &str, id: &str, body: &Value) -> Events {
    container.client().events(&post(path, id, "text/event-stream", body))
}

fn resume(container: &Container, id: &str, last: u64) -> Events {
    let request =
        format!("GET /executions/{id}/events HTTP/1.1\r\nhost: ship\r\nlast-event-id: {last}\r\n\r\n");
    container.client().events(&request)
}

fn text(events: &[Event], name: &str) -> String {
    events.iter().filter(|e| e.name == name).map(|e| e.data["text"].as_str().unwrap()).collect()
}

/// What must hold of every stream that was read from its first event to its end.
fn well_formed(events: &[Event], id: &str) {
    let numbers: Vec<u64> = events.iter().map(|event| event.id.unwrap()).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let terminal = events.iter().filter(|e| matches!(e.name.as_str(), "result" | "error")).count();
    assert_eq!(terminal, 1, "{events:?}");
    assert!(matches!(events.last().unwrap().name.as_str(), "result" | "error"));
    let start = events.iter().find(|event| event.name == "start").unwrap();
    assert_eq!(
        (start.data["execution_id"].as_str(), start.data["session_seq"].as_u64()),
        (Some(id), Some(7))
    );
}

fn record(client: &mut Client, id: &str) -> Value {
    client.get(&format!("/executions/{id}")).json()
}

#[test]
fn a_command_is_streamed_as_it_speaks_and_ends_once() {
    both(|container, client, _| {
        client.shell_ok("mkfifo go");
        let body = json!({"command": "echo one; cat go; echo 'zwei ☃' >&2; exit 3", "timeout": 60});
        let mut events = stream(container, "/shell/exec", "exe_a", &body);
        let mut seen = vec![events.next().unwrap(), events.next().unwrap()];
        assert_eq!((seen[0].name.as_str(), seen[1].data["text"].as_str()), ("start", Some("one\n")));
        assert_eq!(record(client, "exe_a")["status"], "running");
        client.shell_ok("echo two > go");
        seen.extend(events);
        well_formed(&seen, "exe_a");
        assert_eq!((text(&seen, "stdout"), text(&seen, "stderr")), ("one\ntwo\n".into(), "zwei ☃\n".into()));
        let result = &seen.last().unwrap().data;
        assert_eq!((&result["exit_code"], &result["output"]), (&json!(3), &json!("one\ntwo\nzwei ☃\n")));
        assert_eq!((&result["execution_id"], &result["session_seq"]), (&json!("exe_a"), &json!(7)));
        assert_eq!(result["error"], "zwei ☃");
        let record = record(client, "exe_a");
        assert_eq!((&record["status"], &record["result"]), (&json!("failed"), result));
    });
}

#[test]
fn python_is_streamed_with_its_displays_and_its_kernel() {
    both(|container, client, _| {
        client.python_ok("1");
        let code = "import sys, time\nfrom IPython.display import HTML, display, clear_output\nprint('a')\n\
                    print('b', file=sys.stderr)\ndisplay(HTML('<b>x</b>'))\nclear_output()\n1 / 0";
        let events = stream(container, "/ipython/exec", "exe_p", &json!({"code": code, "timeout": 60}));
        let seen: Vec<Event> = events.collect();
        well_formed(&seen, "exe_p");
        assert_eq!(seen[0].data["kernel_seq"], 1);
        assert_eq!((text(&seen, "stdout"), text(&seen, "stderr")), ("a\n".into(), "b\n".into()));
        assert!(seen.iter().any(|e| e.name == "display" && e.data["text/html"] == "<b>x</b>"), "{seen:?}");
        assert!(seen.iter().any(|e| e.name == "clear"));
        let result = &seen.last().unwrap().data;
        assert_eq!(
            (&result["success"], &result["error_detail"]["name"]),
            (&json!(false), &json!("ZeroDivisionError"))
        );
    });
}

#[test]
fn a_stream_is_resumed_where_it_broke_off() {
    both(|container, client, _| {
        client.shell_ok("mkfifo go");
        let body =
            json!({"command": "echo one; cat go; echo three", "timeout": 60, "on_disconnect": "continue"});
        let mut events = stream(container, "/shell/exec", "exe_r", &body);
        let first: Vec<Event> = events.by_ref().take(2).collect();
        drop(events);
        client.shell_ok("echo two > go");
        let rest: Vec<Event> = resume(container, "exe_r", 2).collect();
        let all = [first, rest].concat();
        well_formed(&all, "exe_r");
        assert_eq!(text(&all, "stdout"), "one\ntwo\nthree\n");
        let again: Vec<Event> = resume(container, "exe_r", 0).collect();
        assert_eq!(again, all, "it can be read once more from the start");
        let refused =
            client.raw(b"GET /executions/exe_r/events HTTP/1.1\r\nhost: ship\r\nlast-event-id: x\r\n\r\n");
        assert_eq!(refused.unwrap().status, 400);
        assert_eq!(client.get("/executions/exe_none/events").status, 404);
    });
}

#[test]
fn a_reader_that_comes_late_is_told_what_is_lost_and_finds_it_in_the_output() {
    both(|container, client, _| {
        // Nobody follows, so nothing is held up; five megabytes are more than the ring keeps.
        let body = json!({"command": "seq 1 700000", "timeout": 60});
        let answer = client.raw(post("/shell/exec", "exe_g", "application/json", &body).as_bytes()).unwrap();
        let result = answer.json();
        assert_eq!(
            (answer.status, &result["truncated"], &result["success"]),
            (200, &json!(true), &json!(true))
        );
        let expected: String = (1..=700_000).map(|n| format!("{n}\n")).collect();
        let inline = result["stdout"].as_str().unwrap();
        assert!(expected.starts_with(inline) && inline.len() == 1 << 20);
        let late: Vec<Event> = resume(container, "exe_g", 0).collect();
        assert_eq!(late[0].name, "gap");
        let (first, last) =
            (late[0].data["first_lost"].as_u64().unwrap(), late[0].data["last_lost"].as_u64());
        assert_eq!((first, last), (1, late[1].id.map(|id| id - 1)));
        assert_eq!(late.last().unwrap().name, "result");
        let tail = text(&late, "stdout");
        assert!(!tail.is_empty() && expected.ends_with(&tail));

        // One that has been idle for long is closed.
        let client = &mut container.client();
        let whole = client.get("/executions/exe_g/output?stream=stdout");
        assert!(whole.body == expected.as_bytes(), "{} bytes", whole.body.len());
        assert_eq!(field(&whole.head, "x-output-total").unwrap(), expected.len().to_string());
        let tail = client.get("/executions/exe_g/output?stream=stdout&offset=4000000");
        assert!(tail.body == expected.as_bytes()[4_000_000..]);
        let part = client.get_with("/executions/exe_g/output", "range: bytes=1048570-1048589\r\n");
        assert_eq!((part.status, &part.body[..]), (206, &expected.as_bytes()[1_048_570..1_048_590]));
        let outside = client.get_with("/executions/exe_g/output", "range: bytes=99999999-\r\n");
        assert_eq!(outside.status, 416);
        assert_eq!(client.get("/executions/exe_g/output?stream=stderr").body, b"");
        assert_eq!(client.get("/executions/exe_g/output?stream=other").status, 400);
    });
}

#[test]
fn all_that_python_prints_is_kept_however_fast_it_comes() {
    both(|_, client, _| {
        let expected: String = (0..2_000_000).map(|n| format!("{n}\n")).collect();
        for (id, code) in [
            ("exe_p1", "import sys\nfor n in range(2_000_000): print(n)"),
            ("exe_p2", "print('\\n'.join(map(str, range(2_000_000))), file=sys.stderr)"),
        ] {
            let body = json!({"code": code, "timeout": 100});
            let answer = client.raw(post("/ipython/exec", id, "*/*", &body).as_bytes()).unwrap().json();
            assert_eq!((&answer["success"], &answer["truncated"]), (&json!(true), &json!(true)));
            let stream = if id == "exe_p1" { "stdout" } else { "stderr" };
            let output = client.get(&format!("/executions/{id}/output?stream={stream}"));
            assert!(output.body == expected.as_bytes(), "{id}: {} bytes", output.body.len());
            assert_eq!(field(&output.head, "x-output-total").unwrap(), expected.len().to_string());
        }
    });
}

#[test]
fn output_is_kept_to_its_bound_and_says_how_much_there_was() {
    for isolation in isolations() {
        let mut setup = Setup::new(isolation);
        setup.config.output_limit = 3 << 20;
        let container = setup.start();
        let mut client = container.client();
        let body = json!({"command": "head -c 8000000 /dev/zero | tr '\\0' x", "timeout": 60});
        client.raw(post("/shell/exec", "exe_b", "application/json", &body).as_bytes()).unwrap();
        let output = client.get("/executions/exe_b/output");
        assert_eq!(output.body.len(), 3 << 20);
        assert_eq!(field(&output.head, "x-output-total").unwrap(), "8000000");
        // Where it is kept, user code neither sees nor writes anything.
        assert!(!client.shell("touch /run/ship/agent/x").success);
        assert_eq!(
            client.shell("ls -A /run/ship/agent; ls /proc/*/fd/* -l 2>/dev/null | grep deleted").stdout,
            ""
        );
    }
}

#[test]
fn a_command_waits_for_a_reader_that_keeps_up_so_that_nothing_is_lost() {
    both(|container, _, _| {
        let body = json!({"command": "seq 1 700000", "timeout": 60});
        let mut all = String::new();
        let mut last = 0;
        for event in stream(container, "/shell/exec", "exe_w", &body) {
            last = event.id.expect("no gap");
            if event.name == "stdout" {
                all.push_str(event.data["text"].as_str().unwrap());
            }
        }
        assert!(last > 100);
        let expected: String = (1..=700_000).map(|n| format!("{n}\n")).collect();
        assert!(all == expected, "{} bytes", all.len());
        let peak = container.kib(container.agent(), "VmHWM");
        assert!(peak < 24 << 10, "the agent grew to {peak} KiB");
    });
}

#[test]
fn a_reader_that_reads_nothing_does_not_hold_a_command_for_ever() {
    both(|container, client, _| {
        let body = json!({"command": "head -c 3000000 /dev/zero | tr '\\0' x; touch done", "timeout": 120});
        let mut idle = stream(container, "/shell/exec", "exe_i", &body);
        assert_eq!(idle.next().unwrap().name, "start");
        let record = client.get("/executions/exe_i?wait=110").json();
        assert_eq!(record["status"], "succeeded");
        client.shell_ok("test -e done");
        let rest: Vec<Event> = idle.collect();
        assert!(rest.iter().any(|event| event.name == "gap"), "{}", rest.len());
        assert_eq!(rest.last().unwrap().name, "result");
    });
}

#[test]
fn past_the_wait_the_answer_is_202_and_the_work_goes_on() {
    both(|_, client, _| {
        client.shell_ok("mkfifo go");
        let body = json!({"command": "cat go; echo end", "timeout": 60, "wait": 0});
        let answer = client.raw(post("/shell/exec", "exe_l", "application/json", &body).as_bytes()).unwrap();
        assert_eq!(
            (answer.status, answer.json()),
            (202, json!({"execution_id": "exe_l", "status": "running"}))
        );
        assert_eq!(field(&answer.head, "x-execution-id").as_deref(), Some("exe_l"));
        client.shell_ok("echo data > go");
        let record = client.get("/executions/exe_l?wait=60").json();
        assert_eq!(
            (&record["status"], &record["result"]["stdout"]),
            (&json!("succeeded"), &json!("data\nend\n"))
        );
        assert_eq!(client.get("/executions/exe_l").json(), record);

        let body = json!({"code": "import time; time.sleep(0.5); 7 * 6", "timeout": 60, "wait": 0});
        let answer =
            client.raw(post("/ipython/exec", "exe_m", "application/json", &body).as_bytes()).unwrap();
        assert_eq!(answer.status, 202);
        let record = client.get("/executions/exe_m?wait=60").json();
        assert_eq!((&record["status"], &record["result"]["output"]), (&json!("succeeded"), &json!("42")));
        let bad = json!({"command": "true", "timeout": 1, "wait": 100_000});
        assert_eq!(client.post("/shell/exec", &bad).unwrap_err(), (400, "validation_error".into()));
    });
}

#[test]
fn a_cancelled_command_and_all_it_started_end() {
    both(|container, client, _| {
        let body = json!({"command": "echo up; trap '' TERM; sleep 300 & wait; sleep 300", "timeout": 300});
        let mut events = stream(container, "/shell/exec", "exe_c", &body);
        assert_eq!(events.by_ref().find(|e| e.name == "stdout").unwrap().data["text"], "up\n");
        let began = Instant::now();
        client.post("/executions/exe_c/cancel", &json!({})).unwrap();
        let result = events.last().unwrap();
        assert!(began.elapsed() < Duration::from_secs(20));
        assert_eq!((result.name.as_str(), &result.data["success"]), ("result", &json!(false)));
        assert!(result.data["error"].as_str().unwrap().contains("cancelled"), "{result:?}");
        assert_eq!((&result.data["exit_code"], &result.data["timed_out"]), (&json!(null), &json!(false)));
        // Neither of the sleeps is left.
        assert_eq!(client.shell("pgrep -f 'sleep 30[0]'").stdout, "");
        client.post("/executions/exe_c/cancel", &json!({})).unwrap();
        assert_eq!(record(client, "exe_c")["status"], "failed");
    });
}

#[test]
fn cancelled_python_is_interrupted_or_never_begins_and_the_kernel_lives() {
    both(|container, client, _| {
        client.python_ok("x = 5");
        let body = json!({"code": "print('up', flush=True)\nwhile True: pass", "timeout": 300});
        let mut running = stream(container, "/ipython/exec", "exe_c1", &body);
        running.by_ref().find(|event| event.name == "stdout").unwrap();
        let body = json!({"code": "x = 'never'", "timeout": 300});
        let queued = stream(container, "/ipython/exec", "exe_c2", &body);
        client.post("/executions/exe_c2/cancel", &json!({})).unwrap();
        client.post("/executions/exe_c1/cancel", &json!({})).unwrap();
        let result = running.last().unwrap();
        assert!(
            result.data["error"].as_str().unwrap().starts_with("cancelled: the code was interrupted"),
            "{result:?}"
        );
        let result = queued.last().unwrap();
        assert_eq!(result.data["error"], "cancelled before it began; nothing ran");
        let answer = client.python("x");
        assert_eq!((answer.output.as_str(), answer.kernel_seq), ("5", 1));
    });
}

#[test]
fn a_follower_that_leaves_stops_the_work_unless_it_said_otherwise() {
    both(|container, client, _| {
        for (id, leave, goes_on) in [("exe_1", None, false), ("exe_2", Some("continue"), true)] {
            let mut body = json!({"command": format!("echo up; sleep 2; touch {id}"), "timeout": 60});
            if let Some(leave) = leave {
                body["on_disconnect"] = leave.into();
            }
            let mut events = stream(container, "/shell/exec", id, &body);
            events.by_ref().find(|event| event.name == "stdout").unwrap();
            drop(events);
            let record = client.get(&format!("/executions/{id}?wait=60")).json();
            assert_eq!(record["status"], if goes_on { "succeeded" } else { "failed" }, "{record}");
            assert_eq!(client.shell(&format!("test -e {id}")).success, goes_on);
        }
        // Whoever only waits for the answer is no follower: the work goes on.
        let body = json!({"command": "sleep 1; touch exe_3", "timeout": 60});
        let mut caller = container.client();
        caller.send(post("/shell/exec", "exe_3", "*/*", &body).as_bytes());
        wait_for(|| (client.get("/executions/exe_3").status == 200).then_some(()), "the work to begin");
        drop(caller);
        wait_for(|| client.shell("test -e exe_3").success.then_some(()), "the work that goes on");
        let bad = json!({"command": "true", "timeout": 1, "on_disconnect": "panic"});
        assert_eq!(client.post("/shell/exec", &bad).unwrap_err(), (400, "validation_error".into()));
    });
}

#[test]
fn the_same_id_never_runs_twice() {
    both(|container, client, _| {
        let body = json!({"command": "echo x >> ran; sleep 1; wc -l < ran", "timeout": 60});
        let request = post("/shell/exec", "exe_same", "application/json", &body);
        let clients: Vec<Client> = (0..5).map(|_| container.client()).collect();
        let answers: Vec<Value> = std::thread::scope(|scope| {
            let asked: Vec<_> = clients
                .into_iter()
                .map(|mut one| {
                    scope.spawn({
                        let request = &request;
                        move || one.raw(request.as_bytes()).unwrap().json()
                    })
                })
                .collect();
            asked.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(
            answers.iter().all(|answer| answer == &answers[0] && answer["stdout"] == "1\n"),
            "{answers:?}"
        );
        assert_eq!(client.raw(request.as_bytes()).unwrap().json(), answers[0]);
        assert_eq!(client.shell_ok("wc -l < ran"), "1");
        let other = post("/shell/exec", "exe_same", "*/*", &json!({"command": "true", "timeout": 60}));
        assert_eq!(client.raw(other.as_bytes()).unwrap().status, 409);
        let bad = client.raw(post("/shell/exec", "../x", "*/*", &body).as_bytes()).unwrap();
        assert_eq!(bad.status, 400);
    });
}

#[test]
fn a_dying_kernel_ends_its_stream_with_a_result_that_says_so() {
    both(|container, client, _| {
        let body = json!({"code": "import os; print('last', flush=True); os._exit(3)", "timeout": 60});
        let seen: Vec<Event> = stream(container, "/ipython/exec", "exe_d", &body).collect();
        let result = &seen.last().unwrap().data;
        assert_eq!((&result["success"], &result["kernel_seq"]), (&json!(false), &json!(2)));
        assert!(result["error"].as_str().unwrap().contains("exit status 3"), "{result}");
        assert_eq!(client.python_ok("print(1)"), "1");
    });
}
