//! Changes of files, as events.

use std::time::Duration;

use bay_tests::live::Live;
use bay_tests::{Bay, Client, Options, Sandbox, sse};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn changes_are_told_while_they_happen() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    sandbox.shell_ok("mkdir -p tree/below other");
    let mut watch = open(&sandbox, "tree", true);
    sandbox.write("other/unseen", "x");
    sandbox.write("tree/below/new", "x");
    let created = next(&mut watch, "created");
    assert_eq!((&created["path"], &created["type"]), (&json!("tree/below/new"), &json!("file")));
    sandbox.shell_ok("echo more >> tree/below/new");
    assert_eq!(next(&mut watch, "modified")["path"], "tree/below/new");
    sandbox.shell_ok("mv tree/below/new tree/moved");
    let moved = next(&mut watch, "moved");
    assert_eq!((&moved["path"], &moved["from"]), (&json!("tree/moved"), &json!("tree/below/new")));
    sandbox.shell_ok("rm tree/moved");
    assert_eq!(next(&mut watch, "removed")["path"], "tree/moved");
    // What is watched goes, and the stream comes to its end.
    sandbox.shell_ok("rm -r tree");
    watch.until("0\r\n\r\n", LIMIT);

    let watched = |path: &str| sandbox.call("GET", "filesystem/watch").query("path", path);
    watched("nothing").error(404, "file_not_found");
    assert_eq!(watched("../x").error(400, "invalid_path")["details"]["reason"], "path_traversal");
    watched(".").query("recursive", "maybe").bad_fields(&["recursive"]);
}

#[test]
fn a_stream_ends_with_the_key_that_opened_it() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    let key = bay.api().post("/v1/admin/keys", &json!({ "name": "short-lived" })).send().expect(201);
    let client = Client::new(bay.addr(), key["secret"].as_str());
    let sandbox = Sandbox::again(&client, sandbox);
    let mut watch = open(&sandbox, ".", true);
    sandbox.write("seen", "x");
    assert_eq!(next(&mut watch, "created")["path"], "seen");
    let id = key["id"].as_str().expect("an id");
    bay.api().call("DELETE", &format!("/v1/admin/keys/{id}")).send().expect(204);
    watch.until("0\r\n\r\n", LIMIT);
}

fn open(sandbox: &Sandbox, path: &str, recursive: bool) -> Live {
    let call = sandbox.call("GET", "filesystem/watch").query("path", path);
    let mut watch = Live::new(call.query("recursive", &recursive.to_string()).send_and_leave_unread());
    let head = watch.until("\r\n\r\n", LIMIT).to_ascii_lowercase();
    for line in ["http/1.1 200", "content-type: text/event-stream", "cache-control: no-store"] {
        assert!(head.contains(line), "{line}: {head}");
    }
    watch
}

/// The data of the next event of this name; others before it are passed over.
fn next(watch: &mut Live, name: &str) -> serde_json::Value {
    watch.until(&format!("event: {name}\n"), LIMIT);
    let data = watch.until("\n\n", LIMIT);
    let event = format!("event: {name}\n{}", data.trim_end());
    sse::events(&event).remove(0).data
}
