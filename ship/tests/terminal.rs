//! Terminals: a login shell on a PTY for each WebSocket, and what user code and clients can do to them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bay_ship_api::init::Isolation;
use serde_json::{Value, json};
use support::{Client, Container, PATIENCE, Setup, Stream, isolations};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

const V1: &str = "sec-websocket-protocol: bay.terminal.v1\r\n";
const SIZE: &str = "cols=100&rows=30&term=xterm";

/// A container that offers terminals and shell commands; Python is there, but no kernel runs.
fn setup(isolation: Isolation) -> Setup {
    let mut setup = Setup::new(isolation);
    setup.config.capabilities = ["terminal", "shell"].map(String::from).into();
    setup
}

fn both(test: impl Fn(&Container, &mut Client, Isolation)) {
    for isolation in isolations() {
        let container = setup(isolation).start();
        let mut client = container.client();
        test(&container, &mut client, isolation);
    }
}

fn handshake(query: &str, more: &str) -> String {
    format!(
        "GET /term/ws?{query} HTTP/1.1\r\nhost: ship\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A terminal as its client sees it.
struct Term {
    socket: WebSocket<Box<dyn Stream>>,
    /// Output that no [`Term::until`] has gone past.
    seen: Vec<u8>,
}

/// The end of a terminal: the `exit` message, and the code the server closed with.
type Ending = (Option<Value>, Option<CloseCode>);

impl Term {
    /// Upgrades; also returns the head of the answer.
    fn upgrade(container: &Container, query: &str, more: &str) -> (Self, String) {
        let mut stream = container.client().into_stream();
        // Less than a ping's interval: one that came would let a read go on.
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream.write_all(handshake(query, more).as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let socket = WebSocket::from_raw_socket(stream, Role::Client, None);
        (Self { socket, seen: Vec::new() }, head.to_ascii_lowercase())
    }

    fn open(container: &Container) -> Self {
        Self::upgrade(container, SIZE, V1).0
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.send(Message::Binary(bytes.to_vec().into())).unwrap();
    }

    fn line(&mut self, text: &str) {
        self.send(format!("{text}\r").as_bytes());
    }

    fn control(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The next piece of output; `None` at its end, with what ended it.
    fn next(&mut self) -> Result<Vec<u8>, Ending> {
        let mut exit = None;
        loop {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => {
                    assert_eq!(exit, None, "output after the exit message");
                    return Ok(bytes.to_vec());
                }
                Ok(Message::Text(text)) => exit = Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(frame)) => return Err((exit, frame.map(|frame| frame.code))),
                Ok(_) => {}
                Err(error) => panic!("{error}; seen: {}", String::from_utf8_lossy(&self.seen)),
            }
        }
    }

    /// Reads until this is there; the output up to and with it.
    fn until(&mut self, wanted: &str) -> String {
        let wanted = wanted.as_bytes();
        loop {
            if let Some(at) = self.seen.windows(wanted.len()).position(|part| part == wanted) {
                let rest = self.seen.split_off(at + wanted.len());
                return String::from_utf8_lossy(&std::mem::replace(&mut self.seen, rest)).into_owned();
            }
            match self.next() {
                Ok(more) => self.seen.extend(more),
                Err(end) => panic!("{end:?}; seen: {}", String::from_utf8_lossy(&self.seen)),
            }
        }
    }

    /// Reads to the end; the rest of the output, and the end.
    fn ending(mut self) -> (Vec<u8>, Ending) {
        loop {
            match self.next() {
                Ok(more) => self.seen.extend(more),
                Err(end) => return (self.seen, end),
            }
        }
    }

    /// Runs `program` as what the terminal is for from now on; it has to say READY.
    fn become_program(&mut self, program: &str) {
        // The echo of the line does not look like what it prints.
        self.line(&format!("stty raw -echo; printf 'REA''DY'; exec {program}"));
        self.until("READY");
    }
}

/// Waits until no process fits, as the sandbox sees it.
fn gone(client: &mut Client, pattern: &str) {
    let began = Instant::now();
    while client.shell(&format!("pgrep -f '{pattern}'")).exit_code == Some(0) {
        assert!(began.elapsed() < PATIENCE, "{}", client.shell("ps -eo pid,ppid,pgid,sid,stat,args").stdout);
    }
}

#[test]
fn a_terminal_is_a_login_shell_of_the_user_on_a_pty_of_its_own() {
    for isolation in isolations() {
        let setup = setup(isolation);
        std::fs::write(setup.workspace().join(".bash_profile"), "export FROM=profile\n").unwrap();
        let container = setup.start();
        let (mut term, head) = Term::upgrade(&container, SIZE, V1);
        assert!(
            head.contains(
                "\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n".to_lowercase().as_str()
            )
        );
        assert!(head.contains("\r\nsec-websocket-protocol: bay.terminal.v1\r\n"), "{head}");
        term.line("echo \"<$FROM $TERM $HOME $PWD $GREETING $(id -u):$(id -g)>\"; shopt -q login_shell; echo \"<$?>\"");
        let out = term.until("<0>");
        assert!(out.contains("<profile xterm /workspace /workspace from the profile 1000:1000>"), "{out}");
        assert!(!out.contains("no job control") && !out.contains("cannot set terminal"), "{out}");
        term.line(
            "echo \"<$(tty) $(stty size) $(stat -c '%u %a' \"$(tty)\") $(cat /proc/$$/oom_score_adj)>\"",
        );
        let out = term.until("500>");
        assert!(out.contains("</dev/pts/0 30 100 1000 620 500>"), "{out}");
        term.line("echo </dev/tty >/dev/tty; echo \"<$?>\"; mesg n; echo \"<mesg $? $(mesg)>\"");
        assert!(term.until("is n>").contains("<0>"));
        term.line("script -qc 'tty; echo in''side' /dev/null; tmux -L x new -d 'sleep 99'; tmux -L x ls; tmux -L x kill-server; echo \"<tmux $?>\"");
        let out = term.until("<tmux 0>");
        assert!(out.contains("inside") && out.contains("/dev/pts/1"), "{out}");
        let meta = container.client().get("/meta").json();
        assert_eq!(meta["capabilities"]["terminal"]["endpoints"]["ws"], "GET /term/ws");
    }
}

#[test]
fn signals_and_job_control_work() {
    both(|container, _, _| {
        let mut term = Term::open(container);
        term.line("sh -c 'echo g\"\"o; exec sleep 100'");
        term.until("go");
        term.send(&[3]);
        term.line("echo \"<$?>\"");
        term.until("<130>");
        // It starts nothing once it said hello: a shell that is stopped within vfork never counts as stopped.
        let program = "sleep 100 & trap 'echo resu\"\"med' CONT; trap 'exit 9' INT; echo hel\"\"lo; \
                       while :; do wait; done";
        std::fs::write(container.setup.workspace().join("program"), program).unwrap();
        term.line("sh program");
        term.until("hello");
        term.send(&[0x1A]);
        term.until("Stopped");
        term.line("fg");
        // It goes on only once the terminal is its own again.
        term.until("resumed");
        term.send(&[3]);
        term.line("echo \"<$?>\"");
        term.until("<9>");
        term.line("sleep 100 & jobs; kill %1; wait; echo \"<en\"d\">\"");
        let out = term.until("<end>");
        assert!(out.contains("[1]+  Running"), "{out}");
    });
}

#[test]
fn a_program_sees_a_new_size_and_unknown_messages_do_nothing() {
    both(|container, _, _| {
        let mut term = Term::open(container);
        // Blocked before it says so, the signal is waited for: none is lost, whenever it comes.
        term.line(
            "exec python3 -uc 'import os, signal as s; s.pthread_sigmask(s.SIG_BLOCK, [s.SIGWINCH]); \
             print(\"rea\" + \"dy\"); size = lambda: os.get_terminal_size(0); \
             [(s.sigwait([s.SIGWINCH]), print(f\"<{size().lines} {size().columns}>\")) for _ in iter(int, 1)]'",
        );
        term.until("ready");
        for text in [r#"{"type":"later"}"#, r#"{"type":"resize","cols":0,"rows":3}"#] {
            term.control(text);
        }
        for (cols, rows) in [(120, 40), (1, 1), (1000, 1000)] {
            term.control(&json!({"type": "resize", "cols": cols, "rows": rows}).to_string());
            term.until(&format!("<{rows} {cols}>"));
        }
    });
}

#[test]
fn the_end_of_a_shell_is_told_after_all_of_its_output() {
    both(|container, client, _| {
        for (line, exit) in [
            ("seq 50000; exit 7", json!({"type": "exit", "code": 7})),
            ("seq 50000; kill -9 $$", json!({"type": "exit", "code": null, "signal": "SIGKILL"})),
            ("exec seq 50000", json!({"type": "exit", "code": 0})),
        ] {
            let mut term = Term::open(container);
            term.line(line);
            let (out, end) = term.ending();
            assert_eq!(end, (Some(exit), Some(CloseCode::Normal)), "{line}");
            let out = String::from_utf8(out).unwrap();
            let wanted: String = (1..=50_000).map(|number| format!("{number}\r\n")).collect();
            assert!(out.contains(&wanted), "{line}: {}", &out[out.len() - 200..]);
        }
        // Nor is what a late reader had not read lost, with a process in the background that has the terminal open.
        let mut term = Term::open(container);
        // What a PTY alone takes, so that the shell can always end, however small the frames were.
        let size = 40_000;
        term.line(&format!("sleep 7575 & seq 100000 | head -c {size}; exit 7"));
        gone(client, "[b]ash -l");
        let (out, end) = term.ending();
        assert_eq!(end, (Some(json!({"type": "exit", "code": 7})), Some(CloseCode::Normal)));
        let wanted: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
        assert!(String::from_utf8(out).unwrap().replace("\r\n", "\n").contains(&wanted[..size]));
        // Without anything on the terminal it is not over yet.
        let mut term = Term::open(container);
        let began = Instant::now();
        term.line("exec sleep 1 </dev/null >/dev/null 2>&1");
        assert_eq!(term.ending().1, (Some(json!({"type": "exit", "code": 0})), Some(CloseCode::Normal)));
        assert!(began.elapsed() >= Duration::from_secs(1));
    });
}

#[test]
fn a_background_process_does_not_keep_an_ended_terminal_open() {
    both(|container, client, _| {
        for background in
            ["sleep 7070", "nohup sleep 7070 >/dev/null", "yes 7070", "sh -c 'exec yes 7070 >/dev/tty'"]
        {
            let mut term = Term::open(container);
            term.line(&format!("{background} & sleep 0.1; exit 4"));
            let (_, end) = term.ending();
            assert_eq!(
                end,
                (Some(json!({"type": "exit", "code": 4})), Some(CloseCode::Normal)),
                "{background}"
            );
            gone(client, "[7]070");
        }
    });
}

#[test]
fn every_byte_passes_in_both_directions() {
    both(|container, _, _| {
        let mut term = Term::open(container);
        term.become_program("cat");
        let sent: Vec<u8> = (0..=255u8)
            .cycle()
            .take(256)
            .chain((0..1u32 << 20).map(|i| (i.wrapping_mul(7919) >> 5) as u8))
            .collect();
        let mut writer =
            WebSocket::from_raw_socket(term.socket.get_ref().again().unwrap(), Role::Client, None);
        let input = sent.clone();
        let writing = std::thread::spawn(move || {
            for piece in input.chunks(50_000) {
                writer.send(Message::Binary(piece.to_vec().into())).unwrap();
            }
        });
        let mut got = std::mem::take(&mut term.seen);
        while got.len() < sent.len() {
            got.extend(term.next().unwrap());
        }
        writing.join().unwrap();
        assert!(got == sent, "{} bytes came back", got.len());
    });
}

#[test]
fn output_waits_for_a_slow_reader_and_the_agent_stays_small() {
    both(|container, client, _| {
        let agent = container.agent();
        let mut term = Term::open(container);
        term.become_program("sh -c 'head -c 10000000 /dev/zero; printf END; exec sleep 100'");
        let before = container.kib(agent, "VmHWM");
        // The last bytes, which may come in more than one frame.
        let mut tail = std::mem::take(&mut term.seen);
        let mut count = tail.len();
        while count < 10_000_003 {
            // The pace of this reader: an answer on another connection between any two frames.
            assert_eq!(client.get("/health").status, 200);
            let more = term.next().unwrap();
            count += more.len();
            tail.extend(more);
            tail.drain(..tail.len().saturating_sub(3));
        }
        assert!(count == 10_000_003 && tail.ends_with(b"END"), "{count}");
        let grown = container.kib(agent, "VmHWM") - before;
        assert!(grown < 1024, "the agent grew by {grown} KiB");
    });
}

#[test]
fn input_that_nobody_reads_is_bounded_and_its_terminal_still_ends() {
    both(|container, client, _| {
        let agent = container.agent();
        let mut term = Term::open(container);
        term.become_program("sleep 7171");
        let before = container.kib(agent, "VmHWM");
        // Answered as long as input is taken.
        term.socket.send(Message::Ping("here".into())).unwrap();
        loop {
            if let Message::Pong(bytes) = term.socket.read().unwrap() {
                assert_eq!(bytes, "here");
                break;
            }
        }
        let stream = term.socket.get_ref();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut accepted = 0;
        while term.socket.send(Message::Binary(vec![b'x'; 32 << 10].into())).is_ok() {
            accepted += 32 << 10;
            assert!(accepted < 4 << 20, "input without end was taken");
        }
        assert_eq!(client.get("/health").status, 200);
        let grown = container.kib(agent, "VmHWM") - before;
        assert!(grown < 1024, "the agent grew by {grown} KiB");
        assert_eq!(client.shell("pgrep -f '[s]leep 7171'").exit_code, Some(0));
        drop(term);
        gone(client, "[s]leep 7171");
    });
}

#[test]
fn nothing_of_a_terminal_outlives_its_connection() {
    both(|container, client, isolation| {
        // Closed in due form, hung up, and hung up with output that nobody read.
        for way in 0..3 {
            let mut term = Term::open(container);
            term.line("trap '' HUP TERM INT; nohup sleep 7272 >/dev/null 2>&1 & (trap '' HUP; sleep 7272; sleep 7272) &");
            if isolation == Isolation::TwoUid {
                // Where there is one id, what left its session and its parents cannot be told from others.
                term.line("setsid setsid sleep 7272 >/dev/null 2>&1 </dev/null &");
            }
            term.line("echo st''arted; sleep 7272");
            term.until("started");
            match way {
                0 => {
                    term.socket.close(None).unwrap();
                    while term.socket.read().is_ok() {}
                }
                1 => drop(term),
                _ => {
                    let mut other = Term::open(container);
                    other.become_program("yes 7272");
                    drop((term, other));
                }
            }
            gone(client, "[7]272");
        }
        // Half a goodbye is one as well.
        let mut term = Term::open(container);
        term.become_program("sleep 7373");
        term.socket.get_ref().end_of_sending().unwrap();
        gone(client, "[7]373");
    });
}

#[test]
fn a_terminal_too_many_is_refused_and_each_holds_its_connection() {
    both(|container, client, _| {
        let mut terms: Vec<Term> = (0..16).map(|_| Term::open(container)).collect();
        let refused = container.client().raw(handshake(SIZE, V1).as_bytes()).unwrap();
        assert_eq!(refused.result(), Err((429, "busy".to_owned())));
        // 128 connections: these terminals, the test's client, and as many idle ones as still fit.
        let idle: Vec<Client> = (0..128 - 17).map(|_| container.client()).collect();
        let mut late = UnixStream::connect(container.socket()).unwrap();
        late.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        late.write_all(&[0; 256]).unwrap();
        let kind = late.read(&mut [0]).unwrap_err().kind();
        assert_eq!(kind, std::io::ErrorKind::WouldBlock, "a connection more than there may be was looked at");
        let mut last = terms.pop().unwrap();
        last.line("exit");
        last.ending();
        late.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // Looked at now, and found to prove nothing.
        assert!(matches!(late.read(&mut [0]), Ok(0) | Err(_)));
        drop(idle);
        // Only the handshake waits for the place of the one that ended.
        terms.push(Term::open(container));
        assert_eq!(client.get("/health").status, 200);
    });
}

#[test]
fn requests_that_are_no_handshake_are_refused() {
    both(|container, client, _| {
        let good = handshake(SIZE, V1);
        for (from, to) in [
            ("connection: Upgrade\r\n", ""),
            ("upgrade: websocket\r\n", ""),
            ("upgrade: websocket", "upgrade: h2c"),
            ("version: 13", "version: 8"),
            ("key: dGhl", "key: "),
            ("cols=100", "cols=0"),
            ("rows=30", "rows=1001"),
            ("term=xterm", "term=a%0Ab"),
            ("term=xterm", "term=xterm&terminal_id=t1"),
        ] {
            assert!(good.contains(from), "{from}");
            let answer = container.client().raw(good.replacen(from, to, 1).as_bytes()).unwrap();
            assert_eq!(answer.result(), Err((400, "validation_error".to_owned())), "{from} -> {to}");
        }
        let answer = client.raw(good.replacen("GET", "DELETE", 1).as_bytes()).unwrap();
        assert_eq!(answer.result(), Err((405, "method_not_allowed".to_owned())));
        // Not a pipeline: a part of one is another bash for a moment.
        let bashes = "set -- $(pgrep -x bash); echo $#";
        assert_eq!(client.shell(bashes).stdout.trim(), "1", "no shell was started");
    });
    let mut setup = Setup::new(isolations()[0]);
    setup.config.capabilities = vec!["shell".into()];
    let answer = setup.start().client().raw(handshake(SIZE, V1).as_bytes()).unwrap();
    assert_eq!(answer.result(), Err((400, "capability_not_supported".to_owned())));
}

#[test]
fn clients_that_break_the_rules_are_told_which_and_lose_the_terminal() {
    both(|container, client, _| {
        let big = [&[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0][..], &[0; 1000]].concat();
        for (bytes, code) in [
            // Text that is no control message; more than 64 KiB; no UTF-8; not masked; a continuation of nothing.
            (&[0x81, 0x83, 0, 0, 0, 0, b'l', b's', b'\r'][..], CloseCode::Protocol),
            (&big, CloseCode::Size),
            (&[0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28], CloseCode::Invalid),
            (&[0x82, 0x01, b'x'], CloseCode::Protocol),
            (&[0x80, 0x81, 0, 0, 0, 0, b'x'], CloseCode::Protocol),
        ] {
            let mut term = Term::open(container);
            term.become_program("sleep 7474");
            term.socket.get_mut().write_all(bytes).unwrap();
            assert_eq!(term.ending().1, (None, Some(code)), "{bytes:?}");
            gone(client, "[s]leep 7474");
        }
    });
}

#[test]
fn without_the_subprotocol_text_is_input_but_a_resize_is_not() {
    both(|container, _, _| {
        let (mut term, head) = Term::upgrade(container, "", "sec-websocket-protocol: other\r\n");
        assert!(!head.contains("sec-websocket-protocol"), "{head}");
        term.control("echo \"<$TERM $(stty size) é>\"\r");
        term.until("<xterm-256color 24 80 é>");
        term.control(r#"{"type":"resize","cols":90,"rows":20}"#);
        term.control("echo \"<$(stty size)>\"\r");
        let out = term.until("<20 90>");
        assert!(!out.contains("resize"), "{out}");
        term.control(r#"{"type":"later"}"#);
        term.until("later");
        // Ctrl-U: the line goes.
        term.send(&[0x15]);
        term.line("exit 5");
        assert_eq!(term.ending().1.0, Some(json!({"type": "exit", "code": 5})));
    });
}

#[test]
fn no_terminal_can_be_typed_into_by_another() {
    both(|container, _, _| {
        let mut first = Term::open(container);
        first.line("echo \"<$(tty)>\"");
        first.until("</dev/pts/0>");
        let mut second = Term::open(container);
        let code = "import fcntl, os\n\
            def refused(path, request):\n    \
                try: fcntl.ioctl(os.open(path, os.O_RDWR | os.O_NOCTTY), request, b'x')\n    \
                except OSError as e: return e.errno\n\
            print('<', refused('/dev/pts/0', 0x5412), refused('/dev/tty', 0x5412), refused('/dev/tty', 0x541C), '>')\n";
        std::fs::write(container.setup.workspace().join("inject.py"), code).unwrap();
        second.line("python3 inject.py");
        second.until("< 1 1 1 >");
        // Nobody but the agent has a master, and it cannot be had from the agent.
        second.line("echo \"<$(ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c ptmx) masters>\"");
        second.until("<0 masters>");
    });
}

#[test]
fn a_quiet_terminal_is_pinged() {
    let running: Vec<_> = isolations()
        .into_iter()
        .map(|isolation| {
            std::thread::spawn(move || {
                let container = setup(isolation).start();
                // Before the terminal's own clock begins.
                let began = Instant::now();
                let mut term = Term::open(&container);
                term.become_program("sleep 100");
                term.socket.get_ref().set_read_timeout(Some(Duration::from_secs(40))).unwrap();
                while !matches!(term.socket.read().unwrap(), Message::Ping(_)) {}
                assert!(began.elapsed() > Duration::from_secs(15) && began.elapsed() < PATIENCE);
            })
        })
        .collect();
    for thread in running {
        thread.join().unwrap();
    }
}
