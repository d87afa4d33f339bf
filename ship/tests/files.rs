//! File calls against a container: what they answer, what arrives in pieces, and user code that plays foul
//! meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fs;

use bay_ship_api::init::Isolation;
use serde_json::{Value, json};
use support::client::Refusal;
use support::{Client, Container, Setup, is_root, isolations, wait_for};

fn both(test: impl Fn(&Container, &mut Client, Isolation)) {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        test(&container, &mut client, isolation);
    }
}

fn refusal(status: u16, code: &str) -> Result<Value, Refusal> {
    Err((status, code.to_owned()))
}

#[test]
fn files_are_created_edited_moved_and_described() {
    both(|_, client, _| {
        let create = json!({"path": "dir/a.txt", "content": "one two", "mode": 0o7600});
        let created = client.post("/fs/create_file", &create).unwrap();
        assert_eq!((&created["status"], &created["size"]), (&json!("ok"), &json!(7)));
        assert_eq!(client.post("/fs/create_file", &create), refusal(409, "already_exists"));

        let edit =
            json!({"path": "dir/a.txt", "old_string": "two", "new_string": "2", "if_match": created["etag"]});
        let edited = client.post("/fs/edit_file", &edit).unwrap();
        assert_eq!((&edited["replacements"], &edited["size"]), (&json!(1), &json!(5)));
        assert_eq!(client.post("/fs/edit_file", &edit), refusal(409, "conflict"));
        let again = json!({"path": "dir/a.txt", "old_string": "two", "new_string": "2"});
        let refused = client.post_bytes("/fs/edit_file", again.to_string().as_bytes()).json();
        assert_eq!(refused["error"]["details"]["count"], 0);

        assert_eq!(client.post("/fs/make_dir", &json!({"path": "x/y"})).unwrap()["created"], true);
        assert_eq!(client.post("/fs/make_dir", &json!({"path": "x/y"})).unwrap()["created"], false);
        let rename = json!({"from": "dir/a.txt", "to": "x/y/b.txt"});
        let moved = client.post("/fs/move", &rename).unwrap();
        assert_eq!(moved, json!({"status": "ok", "from": "dir/a.txt", "to": "x/y/b.txt"}));
        assert_eq!(client.post("/fs/move", &rename), refusal(404, "file_not_found"));

        client.shell_ok("ln -s x/y/b.txt link; test \"$(cat x/y/b.txt)\" = 'one 2'");
        let stat = client.post("/fs/stat", &json!({"path": "x/y/b.txt"})).unwrap();
        assert_eq!((&stat["type"], &stat["mode"]), (&json!("file"), &json!("0600")));
        assert_eq!((&stat["name"], &stat["target"]), (&json!("b.txt"), &Value::Null));
        let read = client.post("/fs/read_file", &json!({"path": "link"})).unwrap();
        assert_eq!((&read["content"], &read["etag"]), (&json!("one 2"), &stat["etag"]));
        let link = client.post("/fs/stat", &json!({"path": "link"})).unwrap();
        assert_eq!((&link["type"], &link["target"]), (&json!("symlink"), &json!("x/y/b.txt")));
        let operations = client.get("/meta").json()["capabilities"]["filesystem"]["operations"].clone();
        for operation in ["create_file", "edit_file", "make_dir", "move", "stat", "upload"] {
            assert!(operations.as_array().unwrap().contains(&operation.into()), "{operation}");
        }
    });
}

#[test]
fn an_upload_and_a_download_of_any_size_take_little_memory() {
    const SIZE: usize = 100_000_000;
    both(|container, client, _| {
        let block: Vec<u8> =
            (0..1_000_003u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let before = container.kib(container.agent(), "VmHWM");
        let answer = client.upload("/fs/upload?path=a%2Fbig&mode=384", &block, SIZE).result().unwrap();
        assert_eq!((&answer["path"], &answer["size"]), (&json!("a/big"), &json!(SIZE)));
        assert_eq!(client.shell_ok("stat -c '%a %s %u' a/big; ls -A a"), format!("600 {SIZE} 1000\nbig"));
        let stat = client.post("/fs/stat", &json!({"path": "a/big"})).unwrap();
        assert_eq!(stat["etag"], answer["etag"]);
        let mut at = 0;
        let length = client.download("/fs/download?path=a/big", |bytes| {
            let mut rest = bytes;
            while !rest.is_empty() {
                let expected = &block[at % block.len()..];
                let (now, later) = rest.split_at(rest.len().min(expected.len()));
                assert!(now == &expected[..now.len()], "differs after {at}");
                (at, rest) = (at + now.len(), later);
            }
        });
        assert_eq!((length, at), (SIZE as u64, SIZE));
        let grown = container.kib(container.agent(), "VmHWM") - before;
        assert!(grown < 8 << 10, "{grown} KiB");
    });
}

#[test]
fn an_upload_that_breaks_off_or_does_not_fit_leaves_nothing() {
    both(|container, client, _| {
        let open = |container: &Container| {
            fs::read_dir(format!("/proc/{}/fd", container.agent())).map_or(0, Iterator::count)
        };
        // Once the kernel is there the number of descriptors stays.
        client.python_ok("1");
        client.shell_ok("echo old > kept");
        let before = open(container);
        let head = "POST /fs/upload?path=kept HTTP/1.1\r\nhost: ship\r\ncontent-length: 9000000\r\n\r\n";
        let half = [head.as_bytes(), &vec![b'x'; 3_000_000]].concat();
        container.client().send_only(&half);
        wait_for(|| (open(container) == before).then_some(()), "the upload to end");
        let chunked = "POST /fs/upload?path=kept HTTP/1.1\r\nhost: ship\r\ntransfer-encoding: chunked\r\n\r\n\
                       5\r\nhello\r\n";
        container.client().send_only(chunked.as_bytes());
        wait_for(|| (open(container) == before).then_some(()), "the upload to end");
        assert_eq!(client.shell_ok("ls -A; cat kept"), "kept\nold");

        let whole =
            container.client().raw(format!("{chunked}0\r\n\r\n").as_bytes()).unwrap().result().unwrap();
        assert_eq!(whole["size"], 5);
        let length = "POST /fs/upload?path=kept HTTP/1.1\r\nhost: ship\r\ncontent-length: 1073741825\r\n\r\n";
        let refused = container.client().raw(length.as_bytes()).unwrap().result();
        assert_eq!(refused, refusal(413, "payload_too_large"));
        for (query, code) in [
            ("path=kept&if_match=other", (409, "conflict")),
            ("path=.", (400, "is_a_directory")),
            ("path=..%2Fx", (400, "invalid_path")),
            ("path=kept%2Fx", (400, "not_a_directory")),
            ("mode=1", (400, "validation_error")),
            ("path=x&mode=rw", (400, "validation_error")),
        ] {
            let answer = client.upload(&format!("/fs/upload?{query}"), &[b'x'; 50_000], 3_000_000);
            assert_eq!(answer.result(), refusal(code.0, code.1), "{query}");
        }
        assert_eq!(client.shell_ok("ls -A; cat kept"), "kept\nhello");
    });
}

/// A small file system where a container's workspace will be.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(setup: &Setup) -> Self {
        let at = setup.workspace();
        rustix::mount::mount("tmpfs", &at, "tmpfs", rustix::mount::MountFlags::empty(), c"size=4m").unwrap();
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_is_left_of_what_did_not_fit() {
    if !is_root() {
        return;
    }
    for isolation in isolations() {
        let setup = Setup::new(isolation);
        let _disk = SmallDisk::mount(&setup);
        let container = setup.start();
        let mut client = container.client();
        client.shell_ok("printf old > kept");
        let block = vec![7; 1 << 20];
        // On the same connection: an answer that comes before its body ends does not break it.
        for _ in 0..2 {
            let refused = client.upload("/fs/upload?path=kept", &block, 9_000_000).result();
            assert_eq!(refused, refusal(507, "storage_full"));
        }
        let content = "x".repeat(5 << 20);
        for path in ["kept", "new"] {
            let write = client.post("/fs/write_file", &json!({"path": path, "content": content}));
            assert_eq!(write, refusal(507, "storage_full"));
        }
        let append = json!({"path": "kept", "content": content, "append": true});
        assert_eq!(client.post("/fs/write_file", &append), refusal(507, "storage_full"));
        assert_eq!(
            client.shell_ok("ls -A; cat kept; df --output=used . | tail -1 | tr -d ' '"),
            "kept\nold4"
        );
    }
}

#[test]
fn a_range_outside_the_file_is_answered_with_its_size() {
    both(|_, client, _| {
        client.shell_ok("printf hello > x");
        let answer = client.get_with("/fs/download?path=x", "range: bytes=9-\r\n");
        assert_eq!((answer.status, &answer.json()["error"]["details"]), (416, &json!({"size": 5})));
        assert!(answer.head.to_ascii_lowercase().contains("content-range: bytes */5\r\n"), "{}", answer.head);
    });
}

#[test]
fn huge_directories_and_endless_deletes_do_not_hold_up_others() {
    both(|container, client, _| {
        client.shell_ok("mkdir many && cd many && seq 20000 | xargs touch");
        // More listings and deletes than there are threads.
        std::thread::scope(|scope| {
            for n in 0..8 {
                let mut other = container.client();
                scope.spawn(move || {
                    let path = if n % 2 == 0 { "many" } else { "." };
                    let list = json!({"path": path, "recursive": true, "limit": 1000});
                    // Where it comes after the deletion there is nothing to list.
                    if let Err(refused) = other.post("/fs/list_dir", &list) {
                        assert_eq!(refused, (404, "file_not_found".to_owned()));
                    }
                });
            }
            let mut other = container.client();
            scope.spawn(move || other.post("/fs/delete_file", &json!({"path": "many"})).unwrap());
            for n in 0..20 {
                let write = json!({"path": format!("w{n}"), "content": "x"});
                let began = std::time::Instant::now();
                client.post("/fs/write_file", &write).unwrap();
                assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
            }
        });
        assert_eq!(client.post("/fs/stat", &json!({"path": "many"})), refusal(404, "file_not_found"));
    });
}

/// Rounds of the race, each of 18 calls.
const ROUNDS: usize = 250;
/// What lies outside, and may never be seen.
const CANARY: &str = "do not look";

/// The file calls of one connection, with what they may answer while user code plays foul.
struct Racer {
    client: Client,
    answers: BTreeMap<String, usize>,
}

impl Racer {
    fn call(&mut self, path: &str, body: &Value) -> Option<Value> {
        let answer = self.client.post(path, body);
        self.judge(path, answer)
    }

    /// Errors are allowed where they are honest; nothing may show what is outside.
    fn judge(&mut self, path: &str, answer: Result<Value, Refusal>) -> Option<Value> {
        let said = match &answer {
            Ok(_) => "ok",
            Err((_, code)) => code.as_str(),
        };
        let honest =
            ["ok", "invalid_path", "file_not_found", "not_a_directory", "conflict", "already_exists"];
        let link = ["validation_error", "permission_denied", "is_a_directory"];
        assert!(honest.contains(&said) || link.contains(&said), "{path}: {answer:?}");
        *self.answers.entry(format!("{path} {said}")).or_default() += 1;
        let answer = answer.ok()?;
        let text = answer.to_string();
        assert!(!text.contains(CANARY) && !text.contains("canary"), "{path}: {text}");
        Some(answer)
    }

    fn round(&mut self, n: usize, kept: &mut Vec<String>) {
        let name = |kind: &str| format!("race/d/{kind}{n}");
        for (route, body) in [
            ("/fs/write_file", json!({"path": name("w"), "content": "inside"})),
            ("/fs/write_file", json!({"path": "race/d/file", "content": "inside"})),
            ("/fs/read_file", json!({"path": "race/d/file"})),
            ("/fs/read_file", json!({"path": "race/d/sub/file"})),
            ("/fs/edit_file", json!({"path": "race/d/file", "old_string": "inside", "new_string": "inside"})),
            ("/fs/list_dir", json!({"path": "race/d", "recursive": true, "hidden": true, "limit": 50})),
            ("/fs/list_dir", json!({"path": "race/d/sub"})),
            ("/fs/stat", json!({"path": "race/d/sub/canary"})),
            ("/fs/make_dir", json!({"path": format!("race/d/sub/m{n}")})),
            ("/fs/move", json!({"from": name("w"), "to": format!("race/d/sub/v{n}")})),
            ("/fs/delete_file", json!({"path": format!("race/d/sub/v{n}")})),
            ("/fs/delete_file", json!({"path": format!("race/d/sub/m{n}")})),
            ("/fs/delete_file", json!({"path": "race/d/canary"})),
            ("/fs/delete_file", json!({"path": "race/e"})),
        ] {
            self.call(route, &body);
        }
        let keep = json!({"path": name("k"), "content": name("k")});
        if self.call("/fs/create_file", &keep).is_some() {
            kept.push(name("k"));
        }
        let answer = self.client.upload(&format!("/fs/upload?path={}", name("u")), name("u").as_bytes(), 9);
        if self.judge("/fs/upload", answer.result()).is_some() {
            kept.push(name("u"));
        }
        let answer = self.client.get("/fs/download?path=race/d/file");
        assert!(!String::from_utf8_lossy(&answer.body).contains(CANARY));
    }
}

/// Ends the user code of a race, also when a check fails.
struct Stop(std::path::PathBuf);

impl Drop for Stop {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, "");
    }
}

#[test]
fn nothing_outside_is_touched_while_user_code_exchanges_directories_for_links() {
    both(|container, client, _| {
        client.shell_ok(&format!(
            "mkdir -p /tmp/outside/tree/deep && cd /tmp/outside && \
             for f in canary tree/canary tree/deep/canary; do printf '{CANARY}' > $f; done"
        ));
        let look = "cd /tmp/outside && find . -printf '%p %y %m %s %T@ %C@\\n' | sort && cat canary tree/canary \
                    tree/deep/canary && ls -A /tmp | sort";
        let before = client.shell_ok(look);
        let script = json!({"path": "swapper.py", "content": include_str!("swapper.py")});
        client.post("/fs/write_file", &script).unwrap();
        let mut kept = Vec::new();
        let exchanged: usize = std::thread::scope(|scope| {
            let mut user = container.client();
            let foul = scope.spawn(move || {
                let run = json!({"command": "/usr/bin/python3 swapper.py", "timeout": 300});
                user.shell_with(&run)
            });
            wait_for(|| client.shell("test -d race/ready").success.then_some(()), "the race to begin");
            let stop = Stop(container.setup.workspace().join("stop"));
            let mut racer = Racer { client: container.client(), answers: BTreeMap::new() };
            for n in 0..ROUNDS {
                racer.round(n, &mut kept);
            }
            drop(stop);
            let ended = foul.join().unwrap();
            assert!(ended.success, "{ended:?}");
            ended.stdout.trim().parse().unwrap()
        });
        assert!(exchanged > ROUNDS, "{exchanged}");
        let mut client = container.client();
        assert_eq!(client.shell_ok(look), before);
        // What was said to be written is there, in the real directory.
        assert!(!kept.is_empty());
        for path in kept {
            let read = client.post("/fs/read_file", &json!({"path": path})).unwrap();
            assert!(path.starts_with(read["content"].as_str().unwrap()), "{path}: {read}");
        }
    });
}
