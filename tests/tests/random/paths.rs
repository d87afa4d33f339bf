//! Paths that a client makes up, against a model of what they mean.

use bay_tests::random::{Random, rounds};
use bay_tests::{Bay, Options};
use serde_json::json;

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Refused(&'static str),
    Root,
    Path(String),
}

/// The contract's page on paths, in a few lines and by other means than Bay's.
fn model(path: &str) -> Meaning {
    if path.is_empty() {
        return Meaning::Refused("empty_path");
    }
    if path.contains('\0') {
        return Meaning::Refused("null_byte");
    }
    if path.starts_with('/') {
        return Meaning::Refused("absolute_path");
    }
    let mut depth = Vec::new();
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if part != ".." {
            depth.push(part);
        } else if depth.pop().is_none() {
            return Meaning::Refused("path_traversal");
        }
    }
    if depth.is_empty() { Meaning::Root } else { Meaning::Path(depth.join("/")) }
}

#[test]
fn a_path_means_what_the_contract_says() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    let mut random = Random::from_env();
    let parts = ["a", "b", "..", ".", "", "...", "c d", "ü", "%2e%2e", "..\\", "-", "\0"];
    for round in 0..rounds(60) {
        let length = 1 + random.below(6);
        let path: Vec<&str> = (0..length).map(|_| *random.pick(&parts)).collect();
        let path = path.join("/");
        // Each in a directory of its own, so that no name is a file in one and a directory in another.
        let told = if random.below(2) == 0 { format!("r{round}/{path}") } else { path.clone() };
        let content = format!("round {round}");
        let answer = sandbox.write_with(json!({ "path": told, "content": content })).send();
        match model(&told) {
            Meaning::Refused(reason) => {
                let body = answer.expect(400);
                assert_eq!(
                    body["error"]["details"],
                    json!({ "field": "path", "reason": reason }),
                    "{told:?}: {body}"
                );
            }
            Meaning::Root => assert_eq!(answer.status, 400, "{told:?}: {}", answer.brief()),
            Meaning::Path(real) => match answer.status {
                200 => {
                    assert_eq!(answer.json()["path"], json!(real), "{told:?}");
                    let quoted = real.replace('\'', "'\\''");
                    assert_eq!(sandbox.shell_ok(&format!("cat < './{quoted}'")), content, "{told:?}");
                    assert_eq!(sandbox.read(&told), content, "{told:?}");
                    let top = real.split('/').next().expect("a first part").to_owned();
                    sandbox.remove(&top).send().expect(200);
                }
                // An earlier round may have left a directory of that name.
                other => assert_eq!(other, 400, "{told:?}: {}", answer.brief()),
            },
        }
    }
}
