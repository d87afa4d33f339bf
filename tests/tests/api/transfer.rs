//! Files that stream: uploads, downloads and archives of any size, with Bay's memory as it was.

use std::io::Write;
use std::time::Duration;

use bay_tests::live::Live;
use bay_tests::{Bay, Options, Sandbox, soon};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// Of the large file. `BAY_TEST_TRANSFER_MB` names another.
const MEGABYTES: usize = 64;
/// How much Bay's memory may grow while one goes through it.
const GROWTH: usize = 20 << 20;

#[test]
fn files_of_any_size_go_through_and_leave_bays_memory_as_it_was() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    // Everything is warm before it is measured.
    upload(&sandbox, "warm", b"x").send().expect(200);
    let megabytes =
        std::env::var("BAY_TEST_TRANSFER_MB").ok().and_then(|n| n.parse().ok()).unwrap_or(MEGABYTES);
    let content: Vec<u8> = (0..megabytes << 18).flat_map(|n: usize| (n as u32).to_le_bytes()).collect();
    let before = resident(&bay);
    let written = upload(&sandbox, "large", &content).limit(LIMIT).send().expect(200);
    assert_eq!((&written["path"], &written["size"]), (&json!("large"), &json!(content.len())));
    let mut down = Live::new(sandbox.download("large").limit(LIMIT).send_and_leave_unread());
    let head = down.until("\r\n\r\n", LIMIT);
    assert!(head.contains(&format!("content-length: {}", content.len())), "{head}");
    assert_eq!(down.count_to_end(LIMIT), content.len());
    let grown = peak(&bay).saturating_sub(before);
    assert!(grown < GROWTH, "Bay grew by {grown} bytes");
    // Sums rather than bytes: it is the sandbox that has the file.
    sandbox.write_bytes("part", &content[..4 << 20]);
    let same = format!("cmp <(head -c {} large) part && stat -c %s large", 4 << 20);
    assert_eq!(sandbox.shell_ok(&same), content.len().to_string());
}

fn resident(bay: &Bay) -> usize {
    status(bay, "VmRSS:")
}

fn peak(bay: &Bay) -> usize {
    status(bay, "VmHWM:")
}

fn status(bay: &Bay, field: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/status", bay.pid())).expect("read /proc");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a line of memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

fn part(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--b0undary\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut form: Vec<u8> = parts.iter().flat_map(|(name, content)| part(name, content)).collect();
    form.extend_from_slice(b"--b0undary--\r\n");
    form
}

const FORM: &str = "multipart/form-data; boundary=b0undary";

fn upload(sandbox: &Sandbox, path: &str, content: &[u8]) -> bay_tests::api::Call {
    let body = form(&[("path", path.as_bytes()), ("file", content)]);
    sandbox.call("POST", "filesystem/upload").body(FORM, body)
}

fn send(sandbox: &Sandbox, parts: &[(&str, &[u8])]) -> bay_tests::api::Call {
    sandbox.call("POST", "filesystem/upload").body(FORM, form(parts))
}

#[test]
fn uploads_are_whole_or_not_at_all() {
    let bay = Bay::start(Options::default().config(json!({ "server": { "max_upload": "1m" } })));
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    let written = upload(&sandbox, "a//b/../ü.bin", b"one").send().expect(200);
    assert_eq!(
        (&written["status"], &written["path"], &written["size"]),
        (&json!("ok"), &json!("a/ü.bin"), &json!(3))
    );
    assert_eq!(sandbox.file("a/ü.bin").send().expect(200)["etag"], written["etag"]);
    // By the query, and with what makes it conditional.
    let by_query = |etag: &str| {
        let call = sandbox.call("POST", "filesystem/upload").query("path", "a/ü.bin").query("if_match", etag);
        call.body(FORM, form(&[("mode", b"448"), ("other", b"?"), ("file", b"two")]))
    };
    by_query("other").error(409, "conflict");
    by_query(written["etag"].as_str().unwrap_or_default()).send().expect(200);
    assert_eq!(sandbox.shell_ok("cat a/ü.bin; stat -c ' %a %u' a/ü.bin"), "two 700 1000");

    send(&sandbox, &[("file", b"x"), ("path", b"late")]).bad_fields(&["path"]);
    send(&sandbox, &[("path", b"p")]).bad_fields(&["file"]);
    send(&sandbox, &[("path", b"p"), ("mode", b"rwx"), ("file", b"")]).bad_fields(&["mode"]);
    send(&sandbox, &[("path", b"twice"), ("file", b"1"), ("file", b"2")]).bad_fields(&["file"]);
    for (path, reason) in
        [("../x", "path_traversal"), ("/etc/x", "absolute_path"), ("", "empty_path"), ("a\0b", "null_byte")]
    {
        assert_eq!(upload(&sandbox, path, b"x").error(400, "invalid_path")["details"]["reason"], reason);
    }
    upload(&sandbox, "a", b"x").error(400, "is_a_directory");
    let large = vec![0; (1 << 20) + 1];
    upload(&sandbox, "large", &large).error(413, "payload_too_large");
    sandbox
        .call("POST", "filesystem/upload")
        .json(&json!({ "path": "p" }))
        .error(415, "unsupported_media_type");
    broken(&sandbox);
    assert_eq!(sandbox.shell_ok("find . -type f | sort"), "./a/ü.bin", "nothing else was left");
    others(&bay, &sandbox);
}

/// A sender that goes half way leaves nothing.
fn broken(sandbox: &Sandbox) {
    let whole = form(&[("path", b"broken"), ("file", &vec![7; 500_000])]);
    let call = sandbox.call("POST", "filesystem/upload").header("Content-Type", FORM);
    let mut stream = call.header("Content-Length", &whole.len().to_string()).send_and_leave_unread();
    stream.write_all(&whole[..400_000]).expect("send a part");
    let half_way = soon(LIMIT, || sandbox.shell("ls /proc/self/fd")["success"] == true);
    drop(stream);
    assert!(half_way);
    let cut = form(&[("path", b"cut"), ("file", b"content")]);
    let cut = sandbox.call("POST", "filesystem/upload").body(FORM, &cut[..cut.len() - 6]);
    cut.error(400, "validation_error");
    sandbox.file("broken").error(404, "file_not_found");
    sandbox.file("cut").error(404, "file_not_found");
}

fn others(bay: &Bay, sandbox: &Sandbox) {
    let key = bay.create_key("somebody-else");
    let other = bay_tests::Client::new(bay.addr(), Some(&key));
    let target = |tail: &str| format!("/v1/sandboxes/{}/filesystem/{tail}", sandbox.id);
    other
        .call("POST", &target("upload"))
        .body(FORM, form(&[("path", b"x"), ("file", b"x")]))
        .error(404, "not_found");
    other.call("POST", &target("archive")).body("application/x-tar", vec![0; 1024]).error(404, "not_found");
    other.get(&target("watch")).error(404, "not_found");
    other.get(&target("stat?path=a")).error(404, "not_found");
    other.get(&target("download?path=a")).error(404, "not_found");
    for (tail, body) in [("directories", json!({ "path": "d" })), ("move", json!({ "from": "a", "to": "b" }))]
    {
        other.post(&target(tail), &body).error(404, "not_found");
    }
    let edit = json!({ "path": "a", "old_string": "x", "new_string": "y" });
    other.call("PATCH", &target("files")).json(&edit).error(404, "not_found");
}

#[test]
fn archives_are_unpacked_whole_or_not_at_all_and_directories_come_as_one() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    sandbox.shell_ok("mkdir -p src/deep && echo 1 > src/one && echo 2 > src/deep/two && ln -s one src/link");
    let packed = sandbox.download("src").send();
    assert_eq!((packed.status, packed.header("content-type")), (200, Some("application/x-tar")));
    let named = packed.header("content-disposition").unwrap_or_default();
    assert!(named.starts_with("attachment") && named.contains("src.tar"), "{named}");

    let archive = |path: &str, kind: &str, body: Vec<u8>| {
        sandbox.call("POST", "filesystem/archive").query("path", path).body(kind, body)
    };
    let unpacked = archive("copy", "application/x-tar", packed.body.clone()).send().expect(200);
    assert_eq!((&unpacked["status"], &unpacked["path"]), (&json!("ok"), &json!("copy")));
    assert_eq!(
        sandbox
            .shell_ok("cd copy && find . -type f -o -type l | sort | tr '\\n' ' '; cat $(find . -name two)")
            .lines()
            .last(),
        Some("2")
    );
    sandbox.shell_ok("tar -czf good.tgz -C src . && tar -cPf evil.tar src/../src/one && : > broken.tgz");
    let zipped = sandbox.download("good.tgz").send().body;
    archive("zipped", "application/gzip", zipped.clone()).send().expect(200);
    assert_eq!(sandbox.shell_ok("cat zipped/deep/two zipped/link"), "2\n1");

    for (name, kind, body) in [
        ("climbs", "application/x-tar", sandbox.download("evil.tar").send().body),
        ("cut", "application/gzip", zipped[..zipped.len() / 2].to_vec()),
        ("nothing", "application/x-tar", b"no archive".to_vec()),
    ] {
        let answer = archive(name, kind, body).send();
        assert_eq!(answer.status, 400, "{name}: {}", answer.brief());
        sandbox.dir(name).error(404, "file_not_found");
    }
    archive("x", "application/zip", zipped).error(415, "unsupported_media_type");
    assert_eq!(sandbox.shell_ok("find . -name '.bay-*' | wc -l"), "0", "nothing is left of what was refused");
}

#[test]
fn ranges_are_as_the_rfc_says() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    sandbox.write("ten", "0123456789");
    let etag = sandbox.download("ten").send().header("etag").unwrap_or_default().to_owned();
    let part = |range: &str, if_range: Option<&str>| {
        let call = sandbox.download("ten").header("Range", range);
        if_range.into_iter().fold(call, |call, tag| call.header("If-Range", tag)).send()
    };
    for (range, status, wanted) in [
        ("bytes=0-0", 206, "0"),
        ("bytes=3-5", 206, "345"),
        ("bytes=8-", 206, "89"),
        ("bytes=-3", 206, "789"),
        ("bytes=5-999", 206, "56789"),
        ("bytes=-999", 206, "0123456789"),
        ("lines=1-2", 200, "0123456789"),
        ("bytes=5-3", 200, "0123456789"),
    ] {
        let answer = part(range, None);
        assert_eq!((answer.status, answer.text().as_str()), (status, wanted), "{range}");
    }
    assert_eq!(part("bytes=10-", None).status, 416);
    assert_eq!(part("bytes=0-1", Some(&etag)).text(), "01");
    assert_eq!(part("bytes=0-1", Some("\"another\"")).text(), "0123456789");
    let known = sandbox.download("ten").header("If-None-Match", &etag).send();
    assert_eq!((known.status, known.header("etag")), (304, Some(etag.as_str())));
    paths(&sandbox);
}

/// What changes or looks at a path without moving its bytes.
fn paths(sandbox: &Sandbox) {
    let edit = |body: Value| sandbox.call("PATCH", "filesystem/files").json(&body);
    sandbox.write("text", "a b a");
    let wanted = |old: &str, all: bool| json!({ "path": "text", "old_string": old, "new_string": "c", "replace_all": all });
    assert_eq!(edit(wanted("b", false)).send().expect(200)["replacements"], 1);
    edit(wanted("a", false)).error(409, "conflict");
    edit(wanted("z", false)).error(409, "conflict");
    let edited = edit(wanted("a", true)).send().expect(200);
    assert_eq!(
        (&edited["replacements"], &edited["size"], sandbox.read("text")),
        (&json!(2), &json!(5), "c c c".into())
    );
    let mut stale = wanted("c", true);
    stale["if_match"] = json!("another");
    edit(stale).error(409, "conflict");
    edit(json!({ "path": "text" })).bad_fields(&["new_string", "old_string"]);

    let post = |tail: &str, body: Value| sandbox.post(&format!("filesystem/{tail}"), &body);
    let made = post("directories", json!({ "path": "d/e" })).send().expect(200);
    assert_eq!(made, json!({ "status": "ok", "path": "d/e", "created": true }));
    assert_eq!(post("directories", json!({ "path": "d/e" })).send().expect(200)["created"], false);
    post("directories", json!({ "path": "text" })).error(409, "already_exists");
    let moved = post("move", json!({ "from": "text", "to": "d/e/new" })).send().expect(200);
    assert_eq!(moved, json!({ "status": "ok", "from": "text", "to": "d/e/new" }));
    sandbox.write("text", "again");
    post("move", json!({ "from": "text", "to": "d/e/new" })).error(409, "already_exists");
    post("move", json!({ "from": "text", "to": "d/e/new", "overwrite": true })).send().expect(200);
    post("move", json!({ "from": "gone", "to": "x" })).error(404, "file_not_found");
    for field in ["from", "to"] {
        let mut body = json!({ "from": "ten", "to": "x" });
        body[field] = json!("../x");
        assert_eq!(post("move", body).error(400, "invalid_path")["details"]["field"], field);
    }
    let stat = |path: &str| sandbox.call("GET", "filesystem/stat").query("path", path);
    let file = stat("d/e/new").send().expect(200);
    assert_eq!((&file["type"], &file["size"], &file["name"]), (&json!("file"), &json!(5), &json!("new")));
    assert_eq!(file["etag"], sandbox.file("d/e/new").send().expect(200)["etag"]);
    sandbox.shell_ok("ln -s d/e link; mkfifo pipe");
    assert_eq!(stat("link").send().expect(200)["target"], "d/e");
    assert_eq!(
        (stat("pipe").send().expect(200)["type"].clone(), stat(".").send().expect(200)["type"].clone()),
        (json!("other"), json!("directory"))
    );
    stat("nothing").error(404, "file_not_found");
}
