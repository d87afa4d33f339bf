//! Files beneath `/workspace`.

use std::collections::BTreeSet;

use base64::Engine as _;
use bay_tests::{Bay, Options, Sandbox, form};
use serde_json::{Value, json};

#[test]
fn files_are_written_read_listed_and_removed() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    write_and_read(&sandbox);
    encodings(&sandbox);
    lines(&sandbox);
    conditions(&sandbox);
    refusals(&sandbox);
    names(&sandbox);
    directories(&sandbox);
    downloads(&sandbox);
    removal(&sandbox);
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is no text: {value}"))
}

fn write_and_read(sandbox: &Sandbox) {
    let written = sandbox.write("a/b/c.txt", "hello\n");
    assert_eq!(
        (&written["status"], &written["path"], &written["size"]),
        (&json!("ok"), &json!("a/b/c.txt"), &json!(6))
    );
    let read = sandbox.file("a/b/c.txt").send().expect(200);
    assert_eq!(
        read,
        json!({ "content": "hello\n", "path": "a/b/c.txt", "size": 6, "encoding": "utf-8", "etag": written["etag"] })
    );
    assert_eq!(sandbox.shell_ok("stat -c '%u %g %a %F' a a/b a/b/c.txt"), {
        "1000 1000 755 directory\n1000 1000 755 directory\n1000 1000 644 regular file"
    });
    let changed = sandbox.write("a/b/c.txt", "hello!\n");
    assert_ne!(changed["etag"], written["etag"]);
    assert_eq!(sandbox.file("./a//b/../b/./c.txt").send().expect(200)["path"], "a/b/c.txt");
    sandbox.write_with(json!({ "path": "run.sh", "content": "echo ran", "mode": 0o4755 })).send().expect(200);
    assert_eq!(sandbox.shell_ok("stat -c %a run.sh; ./run.sh"), "755\nran");
    sandbox.write("empty", "");
    assert_eq!(sandbox.read("empty"), "");
    // No half-written or temporary file shows.
    assert_eq!(sandbox.shell_ok("find . -newer run.sh -type f | sort"), "./empty");
}

fn encodings(sandbox: &Sandbox) {
    let every: Vec<u8> = (0..=255).collect();
    sandbox.write_bytes("bytes", &every);
    let error = sandbox.file("bytes").error(400, "validation_error");
    assert!(error["message"].as_str().unwrap().contains("base64"), "it says what helps: {error}");
    let read = sandbox.file("bytes").query("encoding", "base64").send().expect(200);
    assert_eq!(base64::engine::general_purpose::STANDARD.decode(text(&read, "content")).unwrap(), every);
    assert_eq!((&read["encoding"], &read["size"]), (&json!("base64"), &json!(256)));
    let broken = json!({ "path": "never", "content": "***", "encoding": "base64" });
    sandbox.write_with(broken).error(400, "validation_error");
    sandbox.file("never").error(404, "file_not_found");
    sandbox.write("grüße/世界.txt", "🚢");
    assert_eq!(sandbox.read("grüße/世界.txt"), "🚢");
}

fn lines(sandbox: &Sandbox) {
    sandbox.write("lines", "1\n2\n3\n4\n5");
    let part = |offset: &str, limit: &str| {
        let call = sandbox.file("lines").query("offset", offset).query("limit", limit);
        call.send().expect(200)["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(part("2", "2"), "2\n3\n");
    assert_eq!(part("5", "10"), "5");
    assert_eq!(part("6", "1"), "");
    let whole = sandbox.file("lines").query("offset", "4").send().expect(200);
    assert_eq!((&whole["content"], &whole["size"]), (&json!("4\n5"), &json!(9)));
}

fn conditions(sandbox: &Sandbox) {
    let first = sandbox.write("cond", "one");
    let with = |extra: Value| {
        let mut body = json!({ "path": "cond", "content": "two" });
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        sandbox.write_with(body)
    };
    with(json!({ "if_match": "not-it" })).error(409, "conflict");
    assert_eq!(sandbox.read("cond"), "one");
    let second = with(json!({ "if_match": first["etag"] })).send().expect(200);
    with(json!({ "if_match": first["etag"] })).error(409, "conflict");
    let grown = with(json!({ "append": true, "expected_size": 3 })).send().expect(200);
    assert_eq!(grown["size"], 6);
    with(json!({ "append": true, "expected_size": 3 })).error(409, "conflict");
    assert_eq!(sandbox.read("cond"), "twotwo");
    assert_ne!(grown["etag"], second["etag"]);
    sandbox
        .write_with(json!({ "path": "absent", "content": "", "if_match": first["etag"] }))
        .error(409, "conflict");
    sandbox.file("absent").error(404, "file_not_found");
    let appended = sandbox.write_with(json!({ "path": "fresh", "content": "x", "append": true })).send();
    assert_eq!(appended.expect(200)["size"], 1);
}

fn refusals(sandbox: &Sandbox) {
    for call in
        [sandbox.file("no/such"), sandbox.remove("no/such"), sandbox.dir("no/such"), sandbox.download("nope")]
    {
        call.error(404, "file_not_found");
    }
    sandbox.file("a").error(400, "is_a_directory");
    sandbox.file(".").error(400, "is_a_directory");
    sandbox.write_with(json!({ "path": "a", "content": "" })).error(400, "is_a_directory");
    sandbox.dir("lines").error(400, "not_a_directory");
    sandbox.file("lines/below").error(400, "not_a_directory");
    sandbox.write_with(json!({ "path": "lines/below", "content": "" })).error(400, "not_a_directory");
    sandbox.shell_ok("mkdir -p shut && echo x > shut/f && chmod 000 shut; echo y > dark && chmod 000 dark");
    sandbox.file("shut/f").error(403, "permission_denied");
    sandbox.write_with(json!({ "path": "shut/g", "content": "" })).error(403, "permission_denied");
    sandbox.file("dark").error(403, "permission_denied");
    sandbox.shell_ok("chmod 700 shut; chmod 600 dark");
    sandbox.shell_ok("head -c 8388609 /dev/zero | tr '\\0' a > large; truncate -s 20G sparse");
    sandbox.file("large").error(413, "payload_too_large");
    sandbox.file("sparse").error(413, "payload_too_large");
    let long = "n".repeat(300);
    let answer = sandbox.write_with(json!({ "path": long, "content": "" })).send();
    assert_eq!(answer.status, 400, "{}", answer.brief());
    let answer = sandbox.file(&"d/".repeat(3000)).send();
    assert!((400..500).contains(&answer.status), "{}", answer.brief());
}

fn names(sandbox: &Sandbox) {
    for name in [
        "a b",
        "new\nline",
        "quote\"'`$(id)",
        "%2e%2e%2fetc",
        "..hidden",
        "...",
        "-rf",
        "*",
        "back\\slash",
        "~",
        "#?&=",
    ] {
        sandbox.write(&format!("names/{name}"), name);
        assert_eq!(sandbox.read(&format!("names/{name}")), name, "{name:?}");
    }
    let listed = sandbox.dir("names").query("hidden", "true").send().expect(200);
    assert_eq!(listed["entries"].as_array().unwrap().len(), 11, "{listed}");
}

fn directories(sandbox: &Sandbox) {
    sandbox.shell_ok("mkdir -p tree/z/deep tree/y && cd tree && echo 1 > b && echo 22 > A && echo 3 > .hid && ln -s b link && echo 4 > z/deep/f && mkfifo pipe");
    let names = |v: &Value, field: &str| -> Vec<String> {
        v["entries"].as_array().unwrap().iter().map(|e| text(e, field).to_owned()).collect()
    };
    let flat = sandbox.dir("tree").send().expect(200);
    assert_eq!(names(&flat, "name"), ["y", "z", "A", "b", "link"], "directories first, then by name: {flat}");
    assert_eq!((&flat["truncated"], &flat["next_cursor"]), (&json!(false), &Value::Null));
    let entry = &flat["entries"][2];
    assert_eq!(
        (&entry["path"], &entry["type"], &entry["size"]),
        (&json!("tree/A"), &json!("file"), &json!(3)),
        "{entry}"
    );
    assert!(form::is_time(text(entry, "modified_at")), "{entry}");
    assert_eq!(entry["mode"], "0644", "{entry}");
    assert_eq!(flat["entries"][0]["type"], "directory");
    assert_eq!(flat["entries"][4]["type"], "symlink");
    let hidden = sandbox.dir("tree").query("hidden", "true").send().expect(200);
    assert!(names(&hidden, "name").contains(&".hid".to_owned()), "{hidden}");
    let deep = sandbox.dir("tree").query("recursive", "true").send().expect(200);
    let paths: BTreeSet<_> = names(&deep, "path").into_iter().collect();
    assert!(paths.contains("tree/z/deep/f") && paths.contains("tree/A"), "{deep}");

    let mut cursor: Option<String> = None;
    let mut all = Vec::new();
    for _ in 0..10 {
        let mut call = sandbox.dir("tree").query("limit", "2");
        if let Some(cursor) = &cursor {
            call = call.query("cursor", cursor);
        }
        let page = call.send().expect(200);
        let found = names(&page, "name");
        assert!(found.len() <= 2, "{page}");
        all.extend(found);
        assert_eq!(page["truncated"], json!(page["next_cursor"].is_string()), "{page}");
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(all, names(&flat, "name"));
    let answer = sandbox.dir("tree").query("cursor", "nonsense").send();
    assert!([200, 400].contains(&answer.status), "{}", answer.brief());
    assert!(
        names(&sandbox.call("GET", "filesystem/directories").send().expect(200), "name")
            .contains(&"tree".into())
    );
    sandbox.shell_ok("mkdir many && cd many && for i in $(seq 1500); do : > f$i; done");
    let many = sandbox.dir("many").send().expect(200);
    assert_eq!(many["truncated"], true, "a listing is bounded");
}

fn downloads(sandbox: &Sandbox) {
    let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    sandbox.write_bytes("Bericht über 1.bin", &body);
    let whole = sandbox.download("Bericht über 1.bin").send();
    assert_eq!((whole.status, whole.body == body), (200, true));
    assert_eq!(whole.header("content-length"), Some(body.len().to_string().as_str()));
    assert_eq!(whole.header("x-content-type-options"), Some("nosniff"));
    let disposition = whole.header("content-disposition").unwrap_or_default();
    assert!(disposition.starts_with("attachment"), "{disposition}");
    assert!(disposition.contains("filename*=UTF-8''Bericht%20%C3%BCber%201.bin"), "{disposition}");
    let etag = whole.header("etag").expect("an etag").to_owned();
    assert!(etag.starts_with('"') || etag.starts_with("W/\""), "{etag}");
    let part = sandbox.download("Bericht über 1.bin").header("Range", "bytes=10-19").send();
    assert_eq!((part.status, part.body.as_slice()), (206, &body[10..20]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 10-19/{}", body.len()).as_str()));
    let tail = sandbox.download("Bericht über 1.bin").header("Range", "bytes=-5").send();
    assert_eq!((tail.status, tail.body.as_slice()), (206, &body[body.len() - 5..]));
    sandbox
        .download("Bericht über 1.bin")
        .header("Range", "bytes=99999999-")
        .error(416, "range_not_satisfiable");
    // Larger than any bound on bodies, and read by a browser it must never run.
    assert_eq!(sandbox.download("large").send().body.len(), (8 << 20) + 1);
    sandbox.write("x.html", "<script>alert(1)</script>");
    let page = sandbox.download("x.html").send();
    assert!(
        page.header("content-disposition").is_some_and(|d| d.starts_with("attachment")),
        "{:?}",
        page.headers
    );
    assert_eq!(sandbox.download("empty").send().body.len(), 0);
}

fn removal(sandbox: &Sandbox) {
    for root in [".", "./", "a/.."] {
        let error = sandbox.remove(root).send();
        assert_eq!(error.status, 400, "{root}: {}", error.brief());
    }
    assert_eq!(sandbox.remove("run.sh").send().expect(200), json!({ "status": "ok" }));
    sandbox.file("run.sh").error(404, "file_not_found");
    sandbox.shell_ok("mkdir -p doomed/keepout && ln -s ../../lines doomed/keepout/link && ln -s /etc doomed/etc && mkfifo doomed/p");
    assert_eq!(sandbox.remove("doomed").send().expect(200), json!({ "status": "ok" }));
    sandbox.dir("doomed").error(404, "file_not_found");
    assert_eq!(sandbox.read("lines"), "1\n2\n3\n4\n5", "what a link names is not removed with it");
    sandbox.shell_ok("ln -s lines alias");
    assert_eq!(sandbox.read("alias"), "1\n2\n3\n4\n5");
    assert_eq!(sandbox.remove("alias").send().expect(200)["status"], "ok");
    assert_eq!(sandbox.read("lines"), "1\n2\n3\n4\n5");
}
