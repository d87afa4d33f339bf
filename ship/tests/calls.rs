//! The ordinary life of a container: what each route answers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bay_ship_api::handshake::Credentials;
use bay_ship_api::init::Isolation;
use serde_json::{Value, json};
use support::{Client, Container, Setup, isolations};

fn both(test: impl Fn(&Container, &mut Client, Isolation)) {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        test(&container, &mut client, isolation);
    }
}

#[test]
fn health_and_meta_say_what_is_there() {
    both(|_, client, isolation| {
        assert_eq!(client.get("/health").json(), json!({"status": "healthy"}));
        let meta = client.get("/meta").json();
        let wanted = if isolation == Isolation::TwoUid { "two_uid" } else { "nested_pid" };
        assert_eq!(meta["isolation"], wanted);
        assert_eq!(meta["runtime"]["name"], "ship");
        assert_eq!(meta["workspace"]["mount_path"], "/workspace");
        for capability in ["filesystem", "python", "shell"] {
            assert!(meta["capabilities"][capability]["operations"].is_array(), "{capability}");
        }
        client.python_ok("1");
        let python = client.get("/meta").json()["capabilities"]["python"].clone();
        assert_eq!((&python["engine"], &python["state"]), (&json!("ipython"), &json!("ready")));
    });
}

#[test]
fn python_keeps_its_state_and_shows_results_displays_and_errors() {
    both(|_, client, _| {
        assert_eq!(client.python_ok("x = 20\nprint('set')"), "set");
        let answer = client.python("x + 22");
        assert_eq!((answer.output.as_str(), answer.execution_count), ("42", Some(2)));
        assert_eq!(answer.results, [json!({"text/plain": "42"})]);
        assert_eq!((answer.kernel_seq, answer.truncated, answer.timed_out), (1, false, false));

        let answer = client.python("print('before')\nraise ValueError('no \\N{SNOWMAN}')");
        assert!(!answer.success);
        assert_eq!(answer.output, "before\n");
        let (detail, error) = (answer.error_detail.unwrap(), answer.error.unwrap());
        assert_eq!((detail.name.as_str(), detail.value.as_str()), ("ValueError", "no ☃"));
        assert!(error.contains("ValueError: no ☃") && !error.contains('\u{1b}'), "{error}");

        let png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
        let code = format!(
            "from IPython.display import Image, HTML, display\nimport base64\n\
             display(Image(data=base64.b64decode('{png}')))\ndisplay(HTML('<b>x</b>'))"
        );
        let answer = client.python(&code);
        assert_eq!(answer.images.len(), 1, "{answer:?}");
        assert_eq!(answer.images[0]["image/png"].as_str().unwrap().trim(), png);
        assert!(answer.results.iter().any(|bundle| bundle["text/html"] == "<b>x</b>"), "{answer:?}");

        let answer = client.python("import sys; print('seen', file=sys.stderr)");
        assert!(answer.success && answer.output.contains("seen"));
        assert_eq!(client.python_ok("import os; _ = os.system('echo from a child')"), "from a child");
        let answer = client.python("def broken(:");
        assert_eq!(answer.error_detail.unwrap().name, "SyntaxError");
    });
}

#[test]
fn python_asks_nobody_for_input() {
    both(|_, client, _| {
        let began = Instant::now();
        let answer = client.python("input('name? ')");
        assert!(!answer.success && began.elapsed() < Duration::from_secs(20));
        assert!(answer.error.unwrap().contains("does not support input"), "{:?}", answer.error_detail);
    });
}

#[test]
fn python_lives_in_the_workspace_and_imports_from_it_last() {
    both(|_, client, _| {
        let write = json!({"path": "mymodule.py", "content": "VALUE = 'mine'"});
        client.post("/fs/write_file", &write).unwrap();
        assert_eq!(client.python_ok("import os; print(os.getcwd())"), "/workspace");
        assert_eq!(client.python_ok("import mymodule; print(mymodule.VALUE)"), "mine");
        assert_eq!(client.python_ok("import sys; print(sys.path[-1], '' in sys.path)"), "/workspace False");
        assert_eq!(
            client.python_ok("print(os.environ['GREETING'], os.environ['HOME'])"),
            "from the profile /workspace"
        );
        let names = client.python_ok("print([n for n in dir() if not n.startswith('_')])");
        assert_eq!(names, "['In', 'Out', 'exit', 'get_ipython', 'mymodule', 'open', 'os', 'quit', 'sys']");
    });
}

#[test]
fn shell_answers_with_both_streams_and_the_real_end() {
    both(|_, client, _| {
        let answer = client.shell("echo out; echo err >&2; exit 3");
        assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!((answer.exit_code, answer.success, answer.signal), (Some(3), false, None));
        let answer = client.shell("kill -9 $$");
        assert_eq!((answer.exit_code, answer.signal.as_deref()), (None, Some("SIGKILL")));
        assert_eq!(
            client.shell_ok("pwd; echo $HOME $GREETING; id -u; id -g; echo $0"),
            "/workspace\n/workspace from the profile\n1000\n1000\n/bin/bash"
        );
        let body =
            json!({"command": "cat; echo $MORE", "timeout": 10, "stdin": "fed ☃", "env": {"MORE": "given"}});
        assert_eq!(client.shell_with(&body).stdout, "fed ☃given\n");
        assert_eq!(client.shell_ok("cat"), "", "stdin is empty");
        client.shell_ok("mkdir -p sub/dir && ln -s sub/dir inside && ln -s /etc outside && echo > plain");
        for (cwd, wanted) in
            [("sub/dir", "/workspace/sub/dir"), (".", "/workspace"), ("inside", "/workspace/sub/dir")]
        {
            let body = json!({"command": "pwd -P", "timeout": 10, "cwd": cwd});
            assert_eq!(client.shell_with(&body).stdout.trim(), wanted);
        }
        for (cwd, status, code) in [
            ("..", 400, "invalid_path"),
            ("/etc", 400, "invalid_path"),
            ("outside", 400, "invalid_path"),
            ("none", 404, "file_not_found"),
            ("plain", 400, "not_a_directory"),
        ] {
            let body = json!({"command": "pwd", "timeout": 10, "cwd": cwd});
            assert_eq!(client.post("/shell/exec", &body), Err((status, code.to_owned())), "{cwd}");
        }
    });
}

#[test]
fn a_background_process_does_not_hold_the_answer() {
    both(|_, client, _| {
        let began = Instant::now();
        let answer = client.shell("sleep 300 & echo started");
        assert!(answer.success && began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(answer.stdout, "started\n");
        assert_eq!(client.shell_ok("pgrep -c sleep"), "1", "it lives on");
    });
}

#[test]
fn files_are_written_read_listed_downloaded_and_deleted() {
    both(|_, client, _| {
        let write = json!({"path": "dir/a.txt", "content": "one\ntwo\nthree\n", "mode": 0o600});
        let written = client.post("/fs/write_file", &write).unwrap();
        assert_eq!(written["size"], 14);
        assert_eq!(client.shell_ok("stat -c '%a %u %g' dir/a.txt"), "600 1000 1000");
        let read =
            client.post("/fs/read_file", &json!({"path": "dir/a.txt", "offset": 2, "limit": 1})).unwrap();
        assert_eq!(read["content"], "two\n");
        assert_eq!((&read["size"], &read["etag"]), (&json!(14), &written["etag"]));
        let listed = client.post("/fs/list_dir", &json!({"path": ".", "recursive": true})).unwrap();
        let paths: Vec<&Value> = listed["entries"].as_array().unwrap().iter().map(|e| &e["path"]).collect();
        assert_eq!(paths, ["dir", "dir/a.txt"]);

        let whole = client.get("/fs/download?path=dir%2Fa.txt");
        assert_eq!((whole.status, whole.body.as_slice()), (200, &b"one\ntwo\nthree\n"[..]));
        assert!(whole.head.contains(written["etag"].as_str().unwrap()), "{}", whole.head);
        let part = client.get_with("/fs/download?path=dir/a.txt", "range: bytes=4-6\r\n");
        assert_eq!((part.status, part.body.as_slice()), (206, &b"two"[..]));
        let outside = client.get_with("/fs/download?path=dir/a.txt", "range: bytes=99-\r\n");
        assert_eq!(outside.result(), Err((416, "range_not_satisfiable".to_owned())));

        client.post("/fs/delete_file", &json!({"path": "dir"})).unwrap();
        assert_eq!(
            client.post("/fs/read_file", &json!({"path": "dir/a.txt"})),
            Err((404, "file_not_found".into()))
        );
    });
}

#[test]
fn a_large_file_is_downloaded_whole() {
    both(|_, client, _| {
        client.shell_ok("head -c 20000000 /dev/urandom > big; sha256sum big | cut -c1-64 > sum");
        let answer = client.get("/fs/download?path=big");
        assert_eq!(answer.body.len(), 20_000_000);
        let write = json!({"path": "x", "content": "", "append": true});
        client.post("/fs/write_file", &write).unwrap();
        let refused = client.post("/fs/read_file", &json!({"path": "big"}));
        assert_eq!(refused, Err((413, "payload_too_large".into())));
    });
}

#[test]
fn what_leads_out_or_hangs_is_refused() {
    both(|_, client, _| {
        client.shell_ok(
            "ln -s /etc/passwd out; ln -s .. up; mkfifo fifo; ln -s /workspace/ok in; echo fine > ok",
        );
        for (path, status, code) in [
            ("out", 400, "invalid_path"),
            ("up/etc/passwd", 400, "invalid_path"),
            ("../etc/passwd", 400, "invalid_path"),
            ("/etc/passwd", 400, "invalid_path"),
            ("a\0b", 400, "invalid_path"),
            ("", 400, "invalid_path"),
            ("fifo", 400, "validation_error"),
            (".", 400, "is_a_directory"),
        ] {
            let read = client.post("/fs/read_file", &json!({"path": path}));
            assert_eq!(read, Err((status, code.to_owned())), "{path:?}");
        }
        assert_eq!(client.post("/fs/read_file", &json!({"path": "in"})).unwrap()["content"], "fine\n");
        let write = client.post("/fs/write_file", &json!({"path": "out", "content": "x"}));
        assert_eq!(write, Err((400, "invalid_path".into())));
        client.shell_ok("mkdir locked; chmod 0 locked");
        let denied = client.post("/fs/read_file", &json!({"path": "locked/x"}));
        assert_eq!(denied, Err((403, "permission_denied".into())));
    });
}

#[test]
fn bad_requests_get_a_clear_answer_and_the_connection_goes_on() {
    both(|_, client, _| {
        let code = |answer: support::client::Answer| answer.result().unwrap_err();
        assert_eq!(code(client.get("/nothing")), (404, "not_found".into()));
        assert_eq!(code(client.get("/shell/exec")), (405, "method_not_allowed".into()));
        assert_eq!(
            code(client.post_bytes("/shell/exec", b"{\"command\": ")),
            (400, "validation_error".into())
        );
        assert_eq!(code(client.post_bytes("/shell/exec", b"[]")), (400, "validation_error".into()));
        assert_eq!(code(client.post_bytes("/fs/read_file", b"\xff\xfe")), (400, "validation_error".into()));
        for body in [
            json!({"command": "true", "timeout": 0}),
            json!({"command": "true", "timeout": 3601}),
            json!({"command": "tr\0ue", "timeout": 1}),
            json!({"command": "x".repeat(200_000), "timeout": 1}),
            json!({"command": "true", "timeout": 1, "env": {"A-B": ""}}),
            json!({"command": "true", "timeout": 1, "env": {"A": "\0"}}),
        ] {
            assert_eq!(client.post("/shell/exec", &body), Err((400, "validation_error".into())));
        }
        let long = json!({"command": format!(": {}", "x".repeat(120_000)), "timeout": 10});
        assert!(client.shell_with(&long).success);
        assert_eq!(client.python_within("1", 1).output, "1");
        assert_eq!(
            client.post("/ipython/exec", &json!({"code": "1", "timeout": 0})),
            Err((400, "validation_error".into()))
        );
    });
}

#[test]
fn a_body_beyond_the_bound_is_refused_unread() {
    both(|_, client, _| {
        let head = "POST /fs/write_file HTTP/1.1\r\nhost: ship\r\ncontent-length: 90000000\r\n\r\n";
        assert_eq!(client.raw(head.as_bytes()).unwrap().result(), Err((413, "payload_too_large".into())));
    });
}

#[test]
fn only_the_holder_of_the_token_is_spoken_to() {
    for isolation in isolations() {
        let container = Container::new(isolation);
        container.client();
        for wrong in [
            Credentials::new([1; 32], "ses_test", 3),
            Credentials::new([0x5A; 32], "ses_other", 3),
            Credentials::new([0x5A; 32], "ses_test", 4),
        ] {
            assert!(Client::connect(&container.socket(), &wrong).is_err());
        }
        // Whoever speaks HTTP at once, or nothing at all, is told nothing and let go.
        for words in
            [&b"GET /health HTTP/1.1\r\nhost: ship\r\n\r\nand more than a greeting would have"[..], b""]
        {
            let mut stream = UnixStream::connect(container.socket()).unwrap();
            std::io::Write::write_all(&mut stream, words).unwrap();
            let mut said = Vec::new();
            let began = Instant::now();
            let _ = stream.read_to_end(&mut said);
            assert!(said.is_empty() && began.elapsed() < Duration::from_secs(20), "{said:?}");
        }
        container.client().shell_ok("true");
    }
}

#[test]
fn only_what_the_profile_gives_is_served() {
    for isolation in isolations() {
        let mut setup = Setup::new(isolation);
        setup.config.capabilities = vec!["shell".into()];
        let container = setup.start();
        let mut client = container.client();
        client.shell_ok("true");
        for (path, body) in
            [("/ipython/exec", json!({"code": "1", "timeout": 1})), ("/fs/read_file", json!({"path": "x"}))]
        {
            assert_eq!(client.post(path, &body), Err((400, "capability_not_supported".into())), "{path}");
        }
        let meta = client.get("/meta").json();
        assert_eq!(meta["capabilities"].as_object().unwrap().keys().collect::<Vec<_>>(), ["shell"]);
    }
}

#[test]
fn without_any_interpreter_python_is_not_offered_and_the_rest_works() {
    for isolation in isolations() {
        let mut setup = Setup::new(isolation);
        (setup.python, setup.config.python) = (false, Some("/opt/bay/python/bin/python3".into()));
        let container = setup.start();
        let mut client = container.client();
        let meta = client.get("/meta").json();
        assert_eq!(
            meta["capabilities"].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["filesystem", "shell"]
        );
        let unsupported = (400, "capability_not_supported".to_owned());
        let refused = client.post("/ipython/exec", &json!({"code": "1", "timeout": 1}));
        assert_eq!(refused, Err(unsupported.clone()));
        assert_eq!(client.get("/ipython/kernel/status").result(), Err(unsupported.clone()));
        assert_eq!(client.restart(), Err(unsupported.clone()));
        assert_eq!(client.stop(), Err(unsupported));
        client.shell_ok("true");
        assert!(container.setup.log().contains("no Python interpreter"), "{}", container.setup.log());
    }
}

#[test]
fn ship_is_small() {
    both(|container, client, _| {
        client.python_ok("1");
        client.shell_ok("true");
        let resident = |pid| container.kib(pid, "VmRSS");
        let total = resident(container.init()) + resident(container.agent());
        // The static binary is what Bay ships; a dynamic test build brings its C library along.
        let most = if cfg!(target_env = "musl") { 8 } else { 16 };
        assert!(total < most * 1024, "{total} KiB");
    });
}
