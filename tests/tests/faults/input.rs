//! Files that are not what they seem.

use std::time::Duration;

use bay_tests::api::Call;
use bay_tests::{Bay, Options, Sandbox};
use serde_json::json;

/// Long enough for a slow machine, far shorter than a call that hangs on a FIFO.
const PROMPT: Duration = Duration::from_secs(10);

#[test]
fn what_leads_out_of_the_workspace_is_never_followed() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let (sandbox, neighbour) =
        (api.sandbox(json!({ "profile": "shell-only" })), api.sandbox(json!({ "profile": "shell-only" })));
    links(&sandbox);
    neighbour.unharmed();
    not_files(&sandbox);
    neighbour.unharmed();
    a_link_that_flips(&sandbox);
    neighbour.unharmed();
}

#[track_caller]
fn climbs(call: Call) {
    let error = call.limit(PROMPT).error(400, "invalid_path");
    assert_eq!(error["details"]["reason"], "path_traversal", "{error}");
}

fn links(sandbox: &Sandbox) {
    sandbox.shell_ok(
        "ln -s /etc/passwd file; ln -s /etc dir; ln -s / root; ln -s ../etc up; ln -s /proc/self/root magic; \
         ln -s dir second; ln -s /workspace/inside absolute; mkdir inside; echo in > inside/f; ln -s inside fine; \
         ln -s loop loop; echo outside > /tmp/target; ln -s /tmp/target out; ln -s /tmp/new dangling; \
         mkdir -p deep/er; ln -s ../../../etc deep/er/l",
    );
    for path in [
        "file",
        "dir/passwd",
        "root/etc/passwd",
        "up/passwd",
        "magic/etc/passwd",
        "second/passwd",
        "deep/er/l/passwd",
    ] {
        climbs(sandbox.file(path));
        climbs(sandbox.download(path));
    }
    for path in ["dir", "root", "up", "magic", "second"] {
        climbs(sandbox.dir(path));
    }
    for path in ["dir/new", "root/tmp/new", "up/new"] {
        climbs(sandbox.write_with(json!({ "path": path, "content": "x" })));
        climbs(sandbox.remove(path));
    }
    // Writing where such a link is may replace the link itself, but never reaches through it.
    for path in ["out", "dangling"] {
        let answer = sandbox.write_with(json!({ "path": path, "content": "replaced" })).send();
        assert!([200, 400].contains(&answer.status), "{}", answer.brief());
        let answer = sandbox.write_with(json!({ "path": path, "content": "more", "append": true })).send();
        assert!([200, 400].contains(&answer.status), "{}", answer.brief());
    }
    assert_eq!(sandbox.shell_ok("cat /tmp/target; ls /tmp/new 2>/dev/null || echo none"), "outside\nnone");
    // Within the workspace links are links.
    assert_eq!(sandbox.read("fine/f"), "in\n");
    let answer = sandbox.file("loop").limit(PROMPT).send();
    assert!((400..500).contains(&answer.status), "{}", answer.brief());
    // A recursive listing neither follows nor loops.
    sandbox.shell_ok("ln -s . inside/self; ln -s .. inside/parent");
    let listed = sandbox.dir(".").query("recursive", "true").limit(PROMPT).send().expect(200);
    let paths: Vec<_> =
        listed["entries"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    assert!(
        paths.contains(&"inside/f") && !paths.iter().any(|p| p.starts_with("dir/") || p.contains("self/")),
        "{paths:?}"
    );
}

fn not_files(sandbox: &Sandbox) {
    sandbox.shell_ok("mkfifo fifo; mkdir -p kinds; mkfifo kinds/fifo");
    for path in ["fifo", "kinds/fifo"] {
        for call in
            [sandbox.file(path), sandbox.download(path), sandbox.file(path).query("encoding", "base64")]
        {
            let answer = call.limit(PROMPT).send();
            assert!((400..500).contains(&answer.status), "{}: {}", answer.asked, answer.brief());
        }
        let append = json!({ "path": path, "content": "x", "append": true });
        let answer = sandbox.write_with(append).limit(PROMPT).send();
        assert!((400..500).contains(&answer.status), "{}: {}", answer.asked, answer.brief());
    }
    // The contract knows files, directories and links: what is none of them is not shown as one.
    let listed = sandbox.dir("kinds").send().expect(200);
    assert_eq!(listed["entries"], json!([]), "{listed}");
    assert_eq!(sandbox.remove("fifo").send().expect(200)["status"], "ok");
}

/// Between the check and the opening somebody puts a link where a directory was.
fn a_link_that_flips(sandbox: &Sandbox) {
    sandbox.shell_ok(
        "mkdir real && echo harmless > real/passwd && \
         (setsid sh -c 'while [ ! -e enough ]; do ln -sfn /etc flip; ln -sfn real flip; done' >/dev/null 2>&1 &)",
    );
    for _ in 0..150 {
        let answer = sandbox.file("flip/passwd").limit(PROMPT).send();
        match answer.status {
            200 => assert_eq!(answer.json()["content"], "harmless\n"),
            400 | 404 => {}
            other => panic!("{other}: {}", answer.brief()),
        }
    }
    sandbox.write("enough", "");
}
