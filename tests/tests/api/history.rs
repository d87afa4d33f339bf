//! What ran in a sandbox, as its history tells.

use bay_tests::{Bay, Options, Profile, Sandbox, form};
use serde_json::{Value, json};

#[test]
fn history_tells_what_ran() {
    let bay = Bay::start(Options::default().tenant("other"));
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    sandbox.call("GET", "history/last").error(404, "not_found");
    let first = run(&sandbox, json!({ "command": "echo one", "tags": "a, b", "description": "the first" }));
    let second = run(&sandbox, json!({ "command": "echo two; exit 3", "tags": "b" }));
    let third = run(&sandbox, json!({ "command": "echo three" }));

    let (first, second, third) = (first.as_str(), second.as_str(), third.as_str());
    let page = list(&sandbox, "");
    assert_eq!(ids(&page), [third, second, first], "newest first: {page}");
    shape(&page["items"][2]);
    for (query, wanted) in [
        ("tags=b", vec![second, first]),
        ("tags=a,b", vec![first]),
        ("tags=c", vec![]),
        ("success_only=true", vec![third, first]),
        ("exec_type=shell", vec![third, second, first]),
        ("exec_type=python", vec![]),
        ("has_description=true", vec![first]),
        ("has_description=false", vec![third, second]),
        ("has_notes=true", vec![]),
    ] {
        assert_eq!(ids(&list(&sandbox, query)), wanted, "{query}");
    }
    for (query, field) in [("exec_type=x", "exec_type"), ("limit=0", "limit"), ("has_notes=x", "has_notes")] {
        sandbox.call("GET", &format!("history?{query}")).bad_fields(&[field]);
    }
    sandbox.call("GET", "history?cursor=x").bad_fields(&["cursor"]);
    paged(&sandbox, &[third, second, first]);
    let last = sandbox.call("GET", "history/last").send().expect(200);
    assert_eq!(last["id"], json!(third), "{last}");
    annotated(&sandbox, first);
    strangers(&bay, &sandbox, first);
    cleared(&sandbox);
}

fn paged(sandbox: &Sandbox, wanted: &[&str]) {
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = list(sandbox, &format!("limit=1{cursor}"));
        seen.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, wanted);
}

fn shape(entry: &Value) {
    let mut keys: Vec<_> = entry.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut wanted = vec![
        "id",
        "session_seq",
        "exec_type",
        "code",
        "success",
        "execution_time_ms",
        "output",
        "error",
        "description",
        "tags",
        "notes",
        "plugin",
        "created_at",
    ];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert_eq!((&entry["code"], &entry["output"]), (&json!("echo one"), &json!("one\n")), "{entry}");
    assert_eq!((&entry["tags"], &entry["description"]), (&json!("a, b"), &json!("the first")), "{entry}");
    assert!(form::is_time(entry["created_at"].as_str().unwrap_or_default()), "{entry}");
}

fn annotated(sandbox: &Sandbox, id: &str) {
    let tail = format!("history/{id}");
    let patch = |body: Value| sandbox.call("PATCH", &tail).json(&body);
    let entry = patch(json!({ "notes": "kept", "description": null })).send().expect(200);
    assert_eq!((&entry["notes"], &entry["description"]), (&json!("kept"), &Value::Null), "{entry}");
    assert_eq!(entry["tags"], "a, b", "what is not named stays: {entry}");
    assert_eq!(sandbox.call("GET", &tail).send().expect(200), entry);
    assert_eq!(ids(&list(sandbox, "has_notes=true")), [id]);
    patch(json!({ "notes": 1, "tags": [] })).bad_fields(&["notes", "tags"]);
    patch(json!({ "notes": "x".repeat(1 << 20) })).bad_fields(&["notes"]);
    patch(json!({ "tags": "x".repeat(5 << 10) })).bad_fields(&["tags"]);
    let many = ["t"; 33].join(",");
    sandbox.call("GET", "history").query("tags", &many).bad_fields(&["tags"]);
    sandbox.call("PATCH", "history/exe_00000000000000000000000000").json(&json!({})).error(404, "not_found");
    sandbox.call("GET", "history/x").error(404, "not_found");
}

fn strangers(bay: &Bay, sandbox: &Sandbox, id: &str) {
    let other = bay.as_tenant("other");
    for (method, tail) in [
        ("GET", "history".to_owned()),
        ("GET", "history/last".to_owned()),
        ("DELETE", "history".to_owned()),
        ("GET", format!("history/{id}")),
    ] {
        other.call(method, &format!("/v1/sandboxes/{}/{tail}", sandbox.id)).error(404, "not_found");
    }
    let target = format!("/v1/sandboxes/{}/history/{id}", sandbox.id);
    other.call("PATCH", &target).json(&json!({ "notes": "theirs" })).error(404, "not_found");
}

fn cleared(sandbox: &Sandbox) {
    let cleared = sandbox.call("DELETE", "history").send().expect(200);
    assert_eq!(cleared, json!({ "status": "ok", "deleted": 3 }));
    assert_eq!(ids(&list(sandbox, "")), Vec::<String>::new());
}

#[test]
fn a_profile_says_how_much_is_kept() {
    let kept = |id: &str, history: &str| Profile::shell().named(id).with(json!({ "history": history }));
    let options = Options::default().profile(kept("counted", "metadata")).profile(kept("silent", "off"));
    let bay = Bay::start(options);
    let api = bay.api();
    let counted = api.sandbox(json!({ "profile": "counted" }));
    let id = run(&counted, json!({ "command": "echo secret" }));
    let page = list(&counted, "");
    assert_eq!(ids(&page), [id.as_str()]);
    assert!(!page.to_string().contains("secret"), "{page}");
    assert_eq!(page["items"][0]["success"], true);

    let silent = api.sandbox(json!({ "profile": "silent" }));
    let id = run(&silent, json!({ "command": "echo secret" }));
    assert_eq!(ids(&list(&silent, "")), Vec::<String>::new());
    silent.call("GET", &format!("history/{id}")).error(404, "not_found");
    // Whoever waits for it can still learn how it ended.
    let record = silent.call("GET", &format!("executions/{id}")).send().expect(200);
    assert_eq!(record["status"], "succeeded", "{record}");
    assert!(!record.to_string().contains("secret"), "{record}");
}

fn run(sandbox: &Sandbox, body: Value) -> String {
    let ran = sandbox.post("shell/exec", &body).send().expect(200);
    ran["execution_id"].as_str().expect("an execution's id").to_owned()
}

fn list(sandbox: &Sandbox, query: &str) -> Value {
    sandbox.call("GET", &format!("history?{query}")).send().expect(200)
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("a list");
    items.iter().map(|item| item["id"].as_str().unwrap_or_default().to_owned()).collect()
}
