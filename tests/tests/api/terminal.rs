//! Terminals through Bay.

use std::time::Duration;

use bay_tests::ws::{Frame, Ws};
use bay_tests::{Bay, Client, Options, Profile, Sandbox, soon};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(20);
const V1: (&str, &str) = ("Sec-WebSocket-Protocol", "bay.terminal.v1");

fn bay() -> Bay {
    Bay::start(options())
}

fn options() -> Options {
    let capabilities = json!({ "capabilities": ["shell", "filesystem", "terminal"] });
    Options::default().profile(Profile::shell().named("terminal").container(capabilities))
}

fn sandbox(bay: &Bay) -> Sandbox {
    bay.api().sandbox(json!({ "profile": "terminal" }))
}

fn target(sandbox: &Sandbox, query: &str) -> String {
    format!("/v1/sandboxes/{}/terminal/ws{query}", sandbox.id)
}

fn open(bay: &Bay, sandbox: &Sandbox, query: &str, headers: &[(&str, &str)]) -> Ws {
    let bearer = format!("Bearer {}", bay.key());
    let mut all = vec![("Authorization", bearer.as_str())];
    all.extend_from_slice(headers);
    let opened = Ws::open(bay.addr(), &target(sandbox, query), &all);
    opened.unwrap_or_else(|refused| panic!("{} {}", refused.status, refused.brief()))
}

#[test]
fn a_terminal_is_a_login_shell_that_goes_with_its_connection() {
    let bay = bay();
    let sandbox = sandbox(&bay);
    let mut terminal = open(&bay, &sandbox, "?cols=90&rows=30&term=vt100", &[V1]);
    assert_eq!(terminal.protocol.as_deref(), Some("bay.terminal.v1"));
    terminal.binary(b"echo hel''lo $TERM $(stty size) $(id -u)\r");
    terminal.until("hello vt100 30 90 1000", LIMIT);
    terminal.text(r#"{"type":"resize","cols":101,"rows":33}"#);
    terminal.text(r#"{"type":"unknown"}"#);
    terminal.binary(b"echo now $(stty size)\r");
    terminal.until("now 33 101", LIMIT);
    paste(&mut terminal);
    terminal.binary(b"exit 7\r");
    assert_eq!(terminal.control(LIMIT), Frame::Text(r#"{"code":7,"type":"exit"}"#.into()));
    assert_eq!(terminal.control(LIMIT), Frame::Close(Some(1000)));
    assert_eq!(terminal.control(LIMIT), Frame::Gone);
    gone(&bay, &sandbox);
    slow(&bay, &sandbox);
    plain(&bay, &sandbox);
}

/// More than anybody keeps on the way.
fn paste(terminal: &mut Ws) {
    terminal
        .binary(b"stty raw -echo; echo rea''dy; head -c 1000000 | tr -d x | wc -c; stty sane; echo do''ne\r");
    terminal.until("ready", LIMIT);
    for _ in 0..40 {
        terminal.binary(&[b'y'; 25_000]);
    }
    let seen = terminal.until("done", LIMIT);
    assert!(seen.contains("1000000"), "{seen}");
}

/// A client that goes takes its shell along, and what that started.
fn gone(bay: &Bay, sandbox: &Sandbox) {
    let mut terminal = open(bay, sandbox, "", &[V1]);
    terminal.binary(b"sleep 12345 & echo star''ted\r");
    terminal.until("started", LIMIT);
    // Not every image has `pgrep`.
    let look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'sleep 1234[5]'";
    let runs = || sandbox.shell(look)["success"] == true;
    assert!(soon(LIMIT, runs), "what was started in the terminal does not run");
    drop(terminal);
    assert!(soon(LIMIT, || !runs()), "what ran in the terminal outlived its connection");
}

/// More than the kernel keeps in the sockets between a program and a client that reads nothing: what Ship and Bay have
/// to send (4 MB each) and what Bay received (33 MB).
const LOT: usize = 64_000_000;

/// A reader that is slow holds the program back, not Bay's memory up.
fn slow(bay: &Bay, sandbox: &Sandbox) {
    let mut terminal = open(bay, sandbox, "", &[V1]);
    let command = format!("head -c {LOT} /dev/zero | tr '\\0' z; echo; echo whole; touch written\r");
    terminal.binary(command.as_bytes());
    let written = || sandbox.file("written").send().status == 200;
    assert!(!soon(Duration::from_millis(500), written), "somebody keeps all of it");
    let seen = terminal.until("\nwhole", LIMIT);
    assert!(seen.bytes().filter(|b| *b == b'z').count() >= LOT);
    assert!(soon(LIMIT, written));
}

fn plain(bay: &Bay, sandbox: &Sandbox) {
    let mut terminal = open(bay, sandbox, "", &[]);
    assert_eq!(terminal.protocol, None);
    terminal.text(r#"{"type":"resize","cols":77,"rows":22}"#);
    terminal.text("echo pla''in $(stty size)\r");
    terminal.until("plain 22 77", LIMIT);
}

#[test]
fn who_may_not_have_a_terminal_is_told_before_it_opens() {
    let bay = bay();
    let sandbox = sandbox(&bay);
    let refused = |query: &str, headers: &[(&str, &str)], status: u16, code: &str| {
        let answer = Ws::open(bay.addr(), &target(&sandbox, query), headers).err();
        let body = answer.unwrap_or_else(|| panic!("opened: {query} {headers:?}")).expect(status);
        assert_eq!(body["error"]["code"], code, "{body}");
    };
    let own = format!("Bearer {}", bay.key());
    let other = format!("Bearer {}", bay.create_key("somebody-else"));
    let own = ("Authorization", own.as_str());
    refused("", &[V1], 401, "unauthorized");
    refused("", &[V1, ("Authorization", &other)], 404, "not_found");
    refused("?terminal_id=1", &[own], 400, "validation_error");
    refused("?cols=0", &[own], 400, "validation_error");
    refused("?rows=many", &[own], 400, "validation_error");
    refused("?term=a%20b", &[own], 400, "validation_error");
    refused("", &[own, ("Origin", "https://evil.example")], 403, "forbidden");
    bay.api().get(&target(&sandbox, "")).bad_fields(&["Upgrade"]);
    bay.api().post(&target(&sandbox, ""), &json!({})).error(405, "method_not_allowed");
    let without = bay.api().sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let answer = Ws::open(bay.addr(), &target(&without, ""), &[own]).err().map(|answer| answer.expect(400));
    assert_eq!(answer.unwrap_or_default()["error"]["code"], "capability_not_supported");
    assert_eq!(without.show()["session_seq"], 0, "nothing was started for it");

    // As a browser does it: the token is taken, and only the protocol comes back.
    let token = |capability: &str, ttl: u32| {
        let body = json!({ "capabilities": [capability], "ttl": ttl });
        let made = sandbox.post("tokens", &body).send().expect(201);
        format!("bay.terminal.v1, bearer.{}", made["token"].as_str().unwrap_or_default())
    };
    let protocol = "Sec-WebSocket-Protocol";
    refused("", &[(protocol, &token("shell", 60))], 403, "forbidden");
    refused("", &[(protocol, &format!("bay.terminal.v1, bearer.{}", bay.key()))], 401, "unauthorized");
    let opened = Ws::open(bay.addr(), &target(&sandbox, ""), &[(protocol, &token("terminal", 1))]);
    let mut opened = opened.unwrap_or_else(|refused| panic!("{}", refused.brief()));
    assert_eq!(opened.protocol.as_deref(), Some("bay.terminal.v1"));
    opened.binary(b"echo o''pen\r");
    opened.until("open", LIMIT);
    assert_eq!(opened.control(LIMIT), Frame::Close(Some(4401)), "its time is up");
    stopped(&bay, &sandbox);
}

/// What ends the session ends its terminals, and says so.
fn stopped(bay: &Bay, sandbox: &Sandbox) {
    let mut terminal = open(bay, sandbox, "", &[V1]);
    terminal.until("$", LIMIT);
    sandbox.post("stop", &json!({})).send().expect(200);
    assert_eq!(last(&mut terminal), Frame::Close(Some(4409)));
    let mut terminal = open(bay, sandbox, "", &[V1]);
    terminal.until("$", LIMIT);
    let client: Client = bay.api();
    client.call("DELETE", &format!("/v1/sandboxes/{}", sandbox.id)).send();
    assert_eq!(last(&mut terminal), Frame::Close(Some(4404)));
}

#[test]
fn a_bay_that_ends_says_so_and_the_sandbox_stays() {
    let mut bay = Bay::start(options().config(json!({ "server": { "drain_timeout": "1s" } })));
    let sandbox = sandbox(&bay);
    sandbox.shell_ok("touch here");
    let mut terminal = open(&bay, &sandbox, "", &[V1]);
    terminal.until("$", LIMIT);
    assert!(bay.terminate().success());
    assert_eq!(last(&mut terminal), Frame::Close(Some(1001)));
    bay.start_again();
    let sandbox = Sandbox::again(&bay.api(), sandbox);
    sandbox.shell_ok("test -e here");
    assert_eq!(sandbox.show()["session_seq"], 1);
}

/// The last frame; an `exit` may come before it.
fn last(terminal: &mut Ws) -> Frame {
    match terminal.control(LIMIT) {
        Frame::Text(_) => terminal.control(LIMIT),
        other => other,
    }
}
