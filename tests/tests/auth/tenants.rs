//! Another tenant's resource answers exactly as a missing one.

use bay_tests::{Bay, Client, Options};
use serde_json::{Value, json};

#[test]
fn another_tenants_resource_is_a_missing_one() {
    let bay = Bay::start(Options::default().tenant("acme").tenant("zeta"));
    let (acme, zeta) = (bay.as_tenant("acme"), bay.as_tenant("zeta"));
    let theirs = acme.sandbox(json!({ "profile": "shell-only", "name": "secret-name" }));
    let ran = theirs.shell("echo theirs > f");
    let execution = ran["execution_id"].as_str().unwrap();
    let nobody = "sbx_00000000000000000000000000";

    let calls = |client: &Client, id: &str| -> Vec<Value> {
        let at = |tail: &str| format!("/v1/sandboxes/{id}{tail}");
        vec![
            client.get(&at("")),
            client.get(&at("?wait=ready&timeout=1")),
            client.get(&at("?probe=true")),
            client.post(&at("/stop"), &json!({})),
            client.call("DELETE", &at("")),
            client.post(&at("/shell/exec"), &json!({ "command": "cat f" })),
            // Bad input must not tell a missing one from another's either.
            client.post(&at("/shell/exec"), &json!({ "command": 1 })),
            client.post(&at("/python/exec"), &json!({ "code": "1" })),
            client.get(&at("/filesystem/files?path=f")),
            client.call("PUT", &at("/filesystem/files")).json(&json!({ "path": "f", "content": "mine" })),
            client.call("DELETE", &at("/filesystem/files?path=f")),
            client.get(&at("/filesystem/directories")),
            client.get(&at("/filesystem/download?path=f")),
            client.get(&at(&format!("/executions/{execution}"))),
        ]
        .into_iter()
        .map(|call| {
            let mut error = call.error(404, "not_found");
            error["request_id"] = Value::Null;
            error
        })
        .collect()
    };
    let others = calls(&zeta, &theirs.id);
    let missing = calls(&zeta, nobody);
    for (other, missing) in others.iter().zip(&missing) {
        let as_missing = other.to_string().replace(&theirs.id, nobody);
        assert_eq!(as_missing, missing.to_string());
    }
    assert!(zeta.list("/v1/sandboxes").is_empty());
    assert!(bay.api().list("/v1/sandboxes").is_empty(), "the first key has a tenant of its own too");
    let locker = zeta.post("/v1/sandboxes", &json!({ "locker_id": theirs.locker })).error(404, "not_found");
    assert_eq!(locker["details"], json!({ "resource": "locker", "id": theirs.locker }));
    // Nothing of it happened.
    assert_eq!(theirs.read("f"), "theirs\n");
    assert!(!theirs.show().to_string().contains("acme"), "the owner never shows");
    let own = zeta.sandbox(json!({ "profile": "shell-only" }));
    assert_eq!(own.shell_ok("ls -A"), "", "a locker of its own");
    own.unharmed();
}
