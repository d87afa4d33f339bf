//! Archives in and directories out, with user code at work in the same place.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use bay_ship_api::init::Isolation;
use serde_json::json;
use support::{Client, Container, isolations, wait_for};
use tempfile::TempDir;

fn both(test: impl Fn(&Container, &mut Client, Isolation)) {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        test(&container, &mut client, isolation);
    }
}

/// An archive of a directory, made by the machine's own `tar`.
fn tar(dir: &Path, args: &[&str]) -> Vec<u8> {
    let out = Command::new("tar").args(args).args(["-cf", "-", "."]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    out.stdout
}

fn hidden(container: &Container) -> Vec<String> {
    fs::read_dir(container.setup.workspace())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".bay"))
        .collect()
}

fn tree() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("pkg/sub")).unwrap();
    fs::write(dir.path().join("pkg/main.py"), "print('from the archive')\n").unwrap();
    fs::write(dir.path().join("pkg/sub").join("n".repeat(150)), "long").unwrap();
    std::os::unix::fs::symlink("main.py", dir.path().join("pkg/link.py")).unwrap();
    dir
}

#[test]
fn an_archive_becomes_the_users_files_and_comes_back_as_one() {
    both(|container, client, _| {
        let dir = tree();
        for (args, kind) in [(&[][..], "application/x-tar"), (&["-z", "--format=pax"], "application/gzip")] {
            let header = format!("content-type: {kind}\r\n");
            let answer =
                client.post_raw("/fs/archive?path=in/here", &header, &tar(dir.path(), args)).result();
            let answer = answer.unwrap();
            assert_eq!((&answer["status"], &answer["path"]), (&json!("ok"), &json!("in/here")), "{answer}");
            assert_eq!((&answer["entries"], &answer["bytes"]), (&json!(6), &json!(30)), "{answer}");
        }
        assert_eq!(client.shell_ok("python3 in/here/pkg/link.py"), "from the archive");
        assert_eq!(
            client.shell_ok("stat -c '%u %g' in in/here/pkg in/here/pkg/link.py | sort -u"),
            "1000 1000"
        );
        assert!(hidden(container).is_empty());

        let head = client.get_stream("/fs/download?path=in/here").to_ascii_lowercase();
        assert!(head.contains("content-type: application/x-tar") && head.contains("here.tar"), "{head}");
        let mut bytes = Vec::new();
        loop {
            match client.chunk().unwrap() {
                chunk if chunk.is_empty() => break,
                chunk => bytes.extend(chunk),
            }
        }
        let out = TempDir::new().unwrap();
        fs::write(out.path().join("a.tar"), &bytes).unwrap();
        let done = Command::new("tar").args(["-xf", "a.tar"]).current_dir(&out).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        let read = fs::read_to_string(out.path().join("pkg/sub").join("n".repeat(150))).unwrap();
        assert_eq!(read, "long");
        // And in again.
        assert!(client.post_raw("/fs/archive?path=again", "", &bytes).result().is_ok());
    });
}

#[test]
fn a_body_that_breaks_off_or_stops_leaves_nothing_and_holds_no_thread() {
    both(|container, client, _| {
        let head = "POST /fs/archive?path=x HTTP/1.1\r\nhost: ship\r\ncontent-length: 1000000\r\n\r\nbegun";
        let mut slow: Vec<Client> = (0..4).map(|_| container.client()).collect();
        for stalled in &mut slow {
            stalled.send(head.as_bytes());
        }
        wait_for(|| (hidden(container).len() == 4).then_some(()), "four archives on their way");
        let refused = client.post_raw("/fs/archive?path=x", "", b"one too many").result();
        assert_eq!(refused.unwrap_err(), (429, "busy".to_owned()));
        for _ in 0..20 {
            client.post("/fs/write_file", &json!({"path": "y", "content": "still works"})).unwrap();
        }
        drop(slow);
        wait_for(|| hidden(container).is_empty().then_some(()), "nothing to be left");
        assert_eq!(client.shell_ok("ls"), "y");
    });
}

#[test]
fn what_is_no_archive_is_refused_with_its_reason() {
    both(|container, client, _| {
        let refused = client.post_raw("/fs/archive?path=x", "content-type: application/json\r\n", b"{}");
        assert_eq!(refused.status, 415);
        let refused = client.post_raw("/fs/archive?path=../x", "", b"x");
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("invalid_path")));
        let dir = TempDir::new().unwrap();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            dir.path().join("fifo"),
            rustix::fs::Mode::from_raw_mode(0o666),
        )
        .unwrap();
        for (body, reason, entry) in [
            (b"rubbish".to_vec(), "not_an_archive", json!(null)),
            (tar(dir.path(), &[]), "special_file", json!("./fifo")),
        ] {
            let answer = client.post_raw("/fs/archive?path=x", "", &body);
            let error = &answer.json()["error"];
            assert_eq!((answer.status, &error["details"]["reason"]), (400, &json!(reason)), "{error}");
            assert_eq!(error["details"]["entry"], entry);
        }
        assert!(hidden(container).is_empty());
        assert_eq!(client.shell_ok("ls -A"), "");
    });
}

/// Runs in the container: exchanges what appears in staging directories for links out of the workspace.
const EXCHANGE: &str = r"
import os, time
os.makedirs('/tmp/outside', exist_ok=True)
os.makedirs('/workspace/aside')
open('/workspace/ready', 'w').close()
until, turn = time.monotonic() + 25, 0
while time.monotonic() < until and not os.path.exists('/workspace/stop'):
    for name in os.listdir('/workspace'):
        if not name.startswith('.bay-'): continue
        for inner in ('tree', 'tree/pkg', 'tree/pkg/sub'):
            path = '/workspace/' + name + '/' + inner
            try:
                turn += 1
                os.rename(path, '/workspace/aside/%d' % turn)
                os.symlink('/tmp/outside', path)
            except OSError: pass
print(os.listdir('/tmp/outside'))
";

#[test]
fn user_code_in_the_staging_directory_gets_nothing_written_outside() {
    both(|container, client, _| {
        let dir = tree();
        for n in 0..300 {
            fs::write(dir.path().join(format!("pkg/sub/{n}")), "mine").unwrap();
        }
        let body = tar(dir.path(), &[]);
        let mut user = container.client();
        std::thread::scope(|scope| {
            let loops = scope.spawn(move || user.python_ok(EXCHANGE));
            let ready = container.setup.workspace().join("ready");
            wait_for(|| ready.exists().then_some(()), "the loop");
            let (mut turn, mut broken) = (0, 0);
            while !loops.is_finished() {
                // Met once, it has been tried; on a busy machine that may take a while.
                if broken >= 1 && turn >= 20 {
                    fs::write(container.setup.workspace().join("stop"), "").unwrap();
                }
                turn += 1;
                let answer = client.post_raw(&format!("/fs/archive?path=t{turn}"), "", &body);
                assert!(matches!(answer.status, 200 | 400 | 404 | 409), "{:?}", answer.json());
                broken += u32::from(answer.status != 200);
            }
            assert_eq!(loops.join().unwrap(), "[]", "{turn} archives, {broken} of them broken");
            assert!(broken > 0, "the race was never met in {turn} archives");
        });
    });
}

#[test]
fn a_file_that_shrinks_breaks_the_download_and_a_slow_reader_holds_no_thread() {
    both(|container, client, _| {
        client.shell_ok("mkdir d && head -c 20000000 /dev/zero > d/big");
        let mut slow: Vec<Client> = (0..4).map(|_| container.client()).collect();
        for reader in &mut slow {
            assert!(reader.get_stream("/fs/download?path=d").starts_with("HTTP/1.1 200"));
        }
        assert_eq!(client.get("/fs/download?path=d").status, 429);
        client.shell_ok("head -c 1000 /dev/zero > d/big");
        for reader in &mut slow {
            let broken = loop {
                match reader.chunk() {
                    Ok(chunk) => assert!(!chunk.is_empty(), "a broken archive came to a proper end"),
                    Err(error) => break error,
                }
            };
            assert_eq!(broken.kind(), std::io::ErrorKind::UnexpectedEof);
        }
        drop(slow);
        wait_for(
            || container.client().get_stream("/fs/download?path=d").starts_with("HTTP/1.1 200").then_some(()),
            "room again",
        );
    });
}
