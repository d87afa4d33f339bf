//! Lockers, and their files without their sandboxes.

use std::time::Duration;

use bay_tests::{Bay, Client, Options, form, on_docker, soon, until};
use serde_json::{Value, json};

const NOBODY: &str = "lkr_00000000000000000000000000";

#[test]
fn lockers_are_made_listed_changed_and_deleted() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let plain = api.locker(json!({}));
    let notes =
        api.locker(json!({ "name": "notes", "size_limit_mb": 7, "labels": { "team": "a", "x": "1" } }));
    let backend = if on_docker() { "docker_volume" } else { "directory" };
    let made = &notes.made;
    assert_eq!(
        (&made["name"], &made["labels"], &made["size_limit_mb"], &made["backend"]),
        (&json!("notes"), &json!({ "team": "a", "x": "1" }), &json!(7), &json!(backend))
    );
    assert_eq!(
        (&made["managed"], &made["managed_by_sandbox_id"], &made["used_bytes"], &made["used_bytes_at"]),
        (&json!(false), &json!(null), &json!(null), &json!(null))
    );
    for time in ["created_at", "last_accessed_at"] {
        assert!(made[time].as_str().is_some_and(form::is_time), "{made}");
    }
    assert_eq!(notes.show(), *made);
    refusals(&api);
    listing(&api, &[&notes.id, &plain.id]);

    let patch = |body: Value| api.call("PATCH", &format!("/v1/lockers/{}", notes.id)).json(&body);
    let changed = patch(json!({ "labels": { "team": null, "y": "2" } })).send().expect(200);
    assert_eq!((&changed["name"], &changed["labels"]), (&json!("notes"), &json!({ "x": "1", "y": "2" })));
    api.call("PATCH", &format!("/v1/lockers/{}", plain.id))
        .json(&json!({ "name": "notes" }))
        .error(409, "already_exists");
    patch(json!({ "name": "", "labels": { "bay.x": "1" } })).bad_fields(&["name", "labels"]);
    let bare = patch(json!({ "name": null, "labels": null })).send().expect(200);
    assert_eq!((&bare["name"], &bare["labels"]), (&json!(null), &json!({})));
    api.locker(json!({ "name": "notes" }));

    for _ in 0..2 {
        assert_eq!(notes.call("DELETE").send().status, 204);
    }
    notes.call("GET").error(404, "not_found");
    notes.call("PATCH").json(&json!({})).error(404, "not_found");
    notes.files("list", &json!({})).error(404, "not_found");
    assert_eq!(api.list("/v1/lockers").len(), 1);
}

fn refusals(api: &Client) {
    let bad = json!({ "name": 1, "size_limit_mb": 0, "labels": { "a b": "1" } });
    api.post("/v1/lockers", &bad).bad_fields(&["name", "size_limit_mb", "labels"]);
    api.post("/v1/lockers", &json!({ "size_limit_mb": 65_537 })).bad_fields(&["size_limit_mb"]);
    let taken = api.post("/v1/lockers", &json!({ "name": "notes" })).error(409, "already_exists");
    assert_eq!(taken["details"], json!({ "resource": "locker", "name": "notes" }));
    for id in [NOBODY, "lkr_x", "sbx_00000000000000000000000000", "..%2f.."] {
        for method in ["GET", "DELETE"] {
            api.call(method, &format!("/v1/lockers/{id}")).error(404, "not_found");
        }
        api.locker_files(id, "read", &json!({ "path": "a" })).error(404, "not_found");
    }
    api.post(&format!("/v1/lockers/{NOBODY}/files/move"), &json!({})).error(404, "not_found");
    for bad in ["limit=0", "cursor=x", "label=x", "managed=maybe"] {
        api.get(&format!("/v1/lockers?{bad}")).error(400, "validation_error");
    }
}

fn listing(api: &Client, newest_first: &[&str]) {
    let sandbox = api.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let ids = |target: &str| -> Vec<String> {
        api.list(target).iter().map(|l| l["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("/v1/lockers"), newest_first);
    assert_eq!(ids("/v1/lockers?managed=true"), [sandbox.locker.as_str()]);
    assert_eq!(ids("/v1/lockers?label=team%3Da&label=x%3D1"), newest_first[..1]);
    assert!(ids("/v1/lockers?label=team%3Db").is_empty());
    let first = api.get("/v1/lockers?limit=1").send().expect(200);
    assert_eq!(first["items"][0]["id"], newest_first[0]);
    let cursor = first["next_cursor"].as_str().expect("another page");
    let second = api.get("/v1/lockers?limit=1").query("cursor", cursor).send().expect(200);
    assert_eq!((&second["items"][0]["id"], &second["next_cursor"]), (&json!(newest_first[1]), &json!(null)));
    let managed = api.get(&format!("/v1/lockers/{}", sandbox.locker)).send().expect(200);
    assert_eq!((&managed["managed"], &managed["managed_by_sandbox_id"]), (&json!(true), &json!(sandbox.id)));
}

#[test]
fn a_named_locker_is_shared_and_outlives_its_sandboxes() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let locker = api.locker(json!({ "name": "project" }));
    let one = api.sandbox(json!({ "profile": "shell-only", "locker": "project" }));
    let two = api.sandbox(json!({ "profile": "shell-only", "locker_id": locker.id }));
    assert_eq!((&one.locker, &two.locker), (&locker.id, &locker.id));
    one.shell_ok("head -c 300000 /dev/zero > zeros; echo yesterday > diary");
    assert_eq!(two.read("diary"), "yesterday\n");

    let mut using = [one.id.clone(), two.id.clone()];
    using.sort();
    let refused = locker.call("DELETE").error(409, "conflict");
    assert_eq!(refused["details"], json!({ "active_sandbox_ids": using }));
    let lone = api.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let managed = format!("/v1/lockers/{}", lone.locker);
    let refused = api.call("DELETE", &managed).error(409, "conflict");
    assert_eq!(refused["details"], json!({ "managed_by_sandbox_id": lone.id }));
    let refused = api.post("/v1/sandboxes", &json!({ "locker_id": lone.locker })).error(409, "conflict");
    assert_eq!(refused["details"], json!({ "managed_by_sandbox_id": lone.id }));
    api.post("/v1/sandboxes", &json!({ "locker_id": NOBODY })).error(404, "not_found");
    api.post("/v1/sandboxes", &json!({ "locker": "nope" })).error(404, "not_found");
    drop(lone);
    assert_eq!(api.call("DELETE", &managed).send().status, 204, "gone with its sandbox, and it says so");

    drop((one, two));
    let used = until("the end of a session says what is in the locker", Duration::from_secs(20), || {
        locker.show()["used_bytes"].as_u64().filter(|bytes| *bytes >= 300_000)
    });
    assert!(used < 2_000_000, "{used}");
    assert!(locker.show()["used_bytes_at"].as_str().is_some_and(form::is_time));
    // Another conversation.
    let later = api.sandbox(json!({ "profile": "shell-only", "locker": "project" }));
    assert_eq!(later.read("diary"), "yesterday\n");
    drop(later);
    assert_eq!(locker.call("DELETE").send().status, 204);
    api.post("/v1/sandboxes", &json!({ "locker": "project" })).error(404, "not_found");
}

#[test]
fn files_of_a_locker_without_a_sandbox() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let locker = api.locker(json!({}));
    let written =
        locker.files("write", &json!({ "path": "a/b.txt", "content": "hello\n" })).send().expect(200);
    assert_eq!((&written["status"], &written["size"]), (&json!("ok"), &json!(6)));
    let read = locker.files("read", &json!({ "path": "./a//b.txt" })).send().expect(200);
    assert_eq!(
        read,
        json!({ "content": "hello\n", "path": "a/b.txt", "size": 6, "encoding": "utf-8", "etag": written["etag"] })
    );
    let listed = locker.files("list", &json!({})).send().expect(200);
    assert_eq!((&listed["entries"][0]["name"], &listed["truncated"]), (&json!("a"), &json!(false)));
    let stale = json!({ "path": "a/b.txt", "content": "x", "if_match": "nope" });
    locker.files("write", &stale).error(409, "conflict");
    locker.files("read", &json!({ "path": "../x" })).error(400, "invalid_path");
    locker.files("read", &json!({ "path": "/etc/passwd" })).error(400, "invalid_path");
    locker.files("read", &json!({ "path": "nope" })).error(404, "file_not_found");
    locker.files("read", &json!({ "path": "a" })).error(400, "is_a_directory");
    locker.files("read", &json!({})).bad_fields(&["path"]);
    locker.files("write", &json!({ "path": "a", "content": 1 })).bad_fields(&["content"]);
    assert!(api.list("/v1/sandboxes").is_empty(), "what serves it is nobody's sandbox");
    let processes = bay.processes();
    assert!(!processes.is_empty() && processes.iter().all(|p| p.uid != 0 || p.is_init()), "{processes:#?}");

    // The same as a sandbox sees it, and through its session while there is one.
    let sandbox = api.sandbox(json!({ "profile": "shell-only", "locker_id": locker.id }));
    assert_eq!(sandbox.shell_ok("stat -c '%u %g %a' a/b.txt; cat a/b.txt"), "1000 1000 644\nhello");
    sandbox.shell_ok("ln -s /etc/passwd out; mkfifo fifo");
    locker.files("read", &json!({ "path": "out" })).error(400, "invalid_path");
    let fifo = locker.files("read", &json!({ "path": "fifo" })).limit(Duration::from_secs(20)).send();
    assert!((400..500).contains(&fifo.status), "{}", fifo.brief());
    assert_eq!(sandbox.show()["session_seq"], 1);
    // A managed one, too, and it goes with its sandbox.
    let own = api.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let note = json!({ "path": "note", "content": "for you" });
    api.locker_files(&own.locker, "write", &note).send().expect(200);
    assert_eq!(own.read("note"), "for you");
    drop(own);

    locker.files("delete", &json!({ "path": "a" })).send().expect(200);
    sandbox.file("a/b.txt").error(404, "file_not_found");
    let entries = api.list("/v1/admin/audit?action=locker.files.read");
    assert!(entries.len() >= 6, "{entries:#?}");
    let last = entries.last().unwrap();
    assert_eq!(
        (&last["resource"], &last["outcome"], &last["tenant"]),
        (&json!(locker.id), &json!("ok"), &json!("default"))
    );
    assert!(last["key_id"].as_str().is_some_and(|id| form::is_id("key_", id)), "{last}");
    assert_eq!(last["client"], "127.0.0.1");
}

#[test]
fn more_lockers_than_may_be_served_at_once() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let lockers: Vec<_> = (0..5).map(|_| api.locker(json!({}))).collect();
    for round in ["first", "second"] {
        // From both ends, so that the second round meets one that is still warm and ones that had to go.
        for locker in lockers.iter().rev().take(if round == "first" { 5 } else { 1 }) {
            locker.files("write", &json!({ "path": round, "content": round })).send().expect(200);
        }
    }
    let read = lockers[4].files("read", &json!({ "path": "second" })).send().expect(200);
    assert_eq!(read["content"], "second");
}

#[test]
fn a_full_locker_takes_no_more_until_something_is_deleted() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let locker = api.locker(json!({ "size_limit_mb": 1 }));
    let half = |path: &str| json!({ "path": path, "content": "x".repeat(600_000) });
    locker.files("write", &half("one")).send().expect(200);
    let full = locker.files("write", &half("two")).error(507, "storage_full");
    assert_eq!(full["details"]["size_limit_bytes"], 1 << 20);
    assert!(full["details"]["used_bytes"].as_u64() >= Some(600_000), "{full}");
    let sandbox = api.sandbox(json!({ "profile": "shell-only", "locker_id": locker.id }));
    sandbox.write_with(half("two")).error(507, "storage_full");
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n{}\r\n--b--\r\n",
        "x".repeat(600_000)
    );
    let upload = sandbox.call("POST", "filesystem/upload").query("path", "two");
    upload.body("multipart/form-data; boundary=b", form).error(507, "storage_full");
    sandbox.write("small", "fits");
    assert_eq!(sandbox.read("small"), "fits");
    sandbox.remove("one").send().expect(200);
    let fits = soon(Duration::from_secs(20), || sandbox.write_with(half("two")).send().status == 200);
    assert!(fits, "there is room again");
}

#[test]
fn a_bay_killed_amid_a_call_on_a_lockers_files_leaves_nothing() {
    let mut bay = Bay::start(Options::default());
    let api = bay.api();
    let locker = api.locker(json!({}));
    let content = "y".repeat(2 << 20);
    locker.files("write", &json!({ "path": "f", "content": "before" })).send().expect(200);
    assert!(!bay.processes().is_empty(), "kept warm");
    std::thread::scope(|scope| {
        let call = locker.files("write", &json!({ "path": "f", "content": content }));
        let cut = scope.spawn(move || call.try_send());
        until("it has begun", Duration::from_secs(10), || {
            let entries = api.list("/v1/admin/audit?action=locker.files.write");
            (entries.len() == 2).then_some(())
        });
        bay.kill();
        let _either_way = cut.join().expect("the call");
    });
    bay.start_again();
    assert!(soon(Duration::from_secs(20), || bay.processes().is_empty()), "{:#?}", bay.processes());
    let read = locker.files("read", &json!({ "path": "f" })).send().expect(200);
    assert!(read["content"] == "before" || read["content"] == json!(content), "whole, old or new");
    let entries = api.list("/v1/admin/audit?action=locker.files.write");
    assert_eq!(entries.len(), 2, "{entries:#?}");
    assert_eq!(entries[1]["outcome"], "ok");
}
