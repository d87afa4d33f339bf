//! `shell`: both streams, the real end, working directories, what is left running.

use std::time::{Duration, Instant};

use bay_ship_tests::Place;
use serde_json::json;

crate::cases! {
    shell_answers_with_both_streams_and_the_real_end,
    a_background_process_does_not_hold_the_answer,
}

pub(crate) fn shell_answers_with_both_streams_and_the_real_end(place: &dyn Place) {
    let client = &mut place.client();
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
}

pub(crate) fn a_background_process_does_not_hold_the_answer(place: &dyn Place) {
    let client = &mut place.client();
    let began = Instant::now();
    let answer = client.shell("sleep 300 & echo started");
    assert!(answer.success && began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(answer.stdout, "started\n");
    assert_eq!(client.shell_ok("pgrep -c sleep"), "1", "it lives on");
}
