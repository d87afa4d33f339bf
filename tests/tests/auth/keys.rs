//! API keys.

use std::os::unix::fs::PermissionsExt as _;

use bay_tests::{Bay, Options, bay_command};
use serde_json::json;

#[test]
fn a_call_needs_a_key_and_the_key_is_kept_hashed() {
    let mut bay = Bay::start(Options::default());
    let api = bay.api();
    let nobody = bay.anonymous();
    api.get("/v1/sandboxes").send().expect(200);
    let by_header = nobody.with("X-API-Key", bay.key());
    by_header.get("/v1/sandboxes").send().expect(200);
    by_header.post("/v1/sandboxes", &json!({ "profile": "nope" })).error(404, "not_found");

    let long = "x".repeat(4000);
    let near = format!("{}x", bay.key());
    for (name, value) in [
        ("Authorization", "Bearer wrong".to_owned()),
        ("Authorization", format!("Bearer {near}")),
        ("Authorization", format!("Bearer {long}")),
        ("Authorization", "Bearer ".to_owned()),
        ("Authorization", "Basic dXNlcjpwYXNz".to_owned()),
        ("Authorization", bay.key().to_owned()),
        ("X-API-Key", near.clone()),
        ("X-API-Key", String::new()),
    ] {
        nobody.with(name, &value).get("/v1/sandboxes").error(401, "unauthorized");
    }
    // No key comes before anything that could tell whether something exists.
    for (method, target) in [
        ("GET", "/v1/sandboxes/sbx_00000000000000000000000000"),
        ("POST", "/v1/sandboxes"),
        ("DELETE", "/v1/sandboxes/sbx_00000000000000000000000000"),
        ("GET", "/v1/profiles"),
    ] {
        nobody.call(method, target).error(401, "unauthorized");
    }
    let x_owner = api.with("X-Owner", "acme").get("/v1/sandboxes").send();
    assert_eq!(x_owner.status, 400, "X-Owner is for anonymous callers only: {}", x_owner.brief());

    let file = bay.home().join("key");
    let mode = std::fs::metadata(&file).expect("the key file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    assert!(!store_contains(&bay, bay.key().as_bytes()), "the data directory holds the key itself");
    let key = bay.key().to_owned();
    let printed = bay.log().matches(&key).count();
    assert!(printed <= 1, "the key shows {printed} times in the log");
    bay.terminate();
    bay.start_again();
    assert_eq!(bay.log().matches(&key).count(), printed, "a second start shows the key again");
    api.get("/v1/sandboxes").send().expect(200);
}

#[test]
fn two_keys_of_one_tenant_see_the_same_and_a_running_bay_owns_its_store() {
    let mut bay = Bay::start(Options::default());
    let made = bay.api().sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    // While Bay runs nobody else may open its data directory.
    let second = bay_command()
        .args(["serve", "--config"])
        .arg(bay.home().join("bay.toml"))
        .stdin(std::process::Stdio::null())
        .output()
        .expect("run a second Bay");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("data"), "it says that the data directory is in use: {said}");
    bay.terminate();
    let other = bay.create_key("default");
    bay.start_again();
    let list = bay_tests::Client::new(bay.addr(), Some(&other)).list("/v1/sandboxes");
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0]["id"], json!(made.id));
}

fn store_contains(bay: &Bay, needle: &[u8]) -> bool {
    let mut dirs = vec![bay.data_dir()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("read the data directory").flatten() {
            let path = entry.path();
            // Compiled plugins and the runtime hold nothing of anybody's, and are large.
            if path.is_dir() && !path.ends_with("plugin-cache") {
                dirs.push(path);
            } else if path.metadata().is_ok_and(|m| m.is_file() && m.len() < 4 << 20) {
                let bytes = std::fs::read(&path).unwrap_or_default();
                if bytes.windows(needle.len()).any(|w| w == needle) {
                    return true;
                }
            }
        }
    }
    false
}
