//! Who may touch lockers and their files, and who may read what was done.

use bay_tests::{Bay, Client, Options};
use serde_json::{Value, json};

const NOBODY: &str = "lkr_00000000000000000000000000";
const OPERATIONS: [&str; 4] = ["read", "write", "list", "delete"];

#[test]
fn another_tenants_locker_is_a_missing_one_and_files_need_their_scope() {
    let mut bay = Bay::start(Options::default().tenant("acme").tenant("zeta"));
    bay.terminate();
    let files = ["acme", "zeta"].map(|tenant| bay.scoped_key(tenant, "lockers:files"));
    let admin = bay.scoped_key("ops", "admin");
    bay.start_again();
    let [acme_files, zeta_files] = &files;
    let (acme, zeta) = (bay.as_tenant("acme"), bay.as_tenant("zeta"));
    let theirs = acme.locker(json!({ "name": "secret-name" }));
    let body = json!({ "path": "f", "content": "theirs" });
    acme_files.locker_files(&theirs.id, "write", &body).send().expect(200);

    for operation in OPERATIONS {
        // Before anything that could tell whether there is such a locker.
        for id in [&theirs.id, NOBODY] {
            acme.locker_files(id, operation, &body).error(403, "forbidden");
            zeta.locker_files(id, operation, &body).error(403, "forbidden");
            bay.anonymous().locker_files(id, operation, &body).error(401, "unauthorized");
        }
    }
    for target in ["/v1/admin/audit", "/v1/admin/errors"] {
        acme.get(target).error(403, "forbidden");
        acme_files.get(target).error(403, "forbidden");
        bay.anonymous().get(target).error(401, "unauthorized");
        admin.get(target).send().expect(200);
    }

    let others = calls(&zeta, zeta_files, &theirs.id);
    let missing = calls(&zeta, zeta_files, NOBODY);
    for (other, missing) in others.iter().zip(&missing) {
        assert_eq!(other.to_string().replace(&theirs.id, NOBODY), missing.to_string());
    }
    let named = zeta.post("/v1/sandboxes", &json!({ "locker": "secret-name" })).error(404, "not_found");
    assert_eq!(named["details"], json!({ "resource": "locker", "id": "secret-name" }));
    assert!(zeta.list("/v1/lockers").is_empty() && zeta.list("/v1/lockers?managed=true").is_empty());
    // A name is unique within a tenant, not among them.
    let own = zeta.locker(json!({ "name": "secret-name" }));
    assert_eq!(zeta_files.locker_files(&own.id, "list", &json!({})).send().expect(200)["entries"], json!([]));
    let read = acme_files.locker_files(&theirs.id, "read", &json!({ "path": "f" })).send().expect(200);
    assert_eq!(read["content"], "theirs");
    assert!(!theirs.show().to_string().contains("acme"), "the owner never shows");
    audited(&admin);
}

fn calls(client: &Client, files: &Client, id: &str) -> Vec<Value> {
    let at = format!("/v1/lockers/{id}");
    let mut all = vec![
        client.get(&at),
        client.call("PATCH", &at).json(&json!({ "name": "mine" })),
        client.call("PATCH", &at).json(&json!({ "name": 1 })),
        client.call("DELETE", &at),
        client.post("/v1/sandboxes", &json!({ "locker_id": id })),
    ];
    all.extend(
        OPERATIONS
            .map(|operation| files.locker_files(id, operation, &json!({ "path": "f", "content": "mine" }))),
    );
    // Bad input must not tell a missing one from another's either.
    all.push(files.locker_files(id, "read", &json!({ "path": 1 })));
    all.into_iter()
        .map(|call| {
            let mut error = call.error(404, "not_found");
            error["request_id"] = Value::Null;
            error
        })
        .collect()
}

fn audited(admin: &Client) {
    let reads = admin.list("/v1/admin/audit?action=locker.files.read");
    let tried: Vec<_> = reads.iter().map(|e| (e["tenant"].as_str(), e["outcome"].as_str())).collect();
    assert!(tried.contains(&(Some("zeta"), Some("not_found"))), "{tried:?}");
    assert!(tried.contains(&(Some("acme"), Some("ok"))), "{tried:?}");
    let of_zeta = admin.list("/v1/admin/audit?tenant=zeta");
    assert!(of_zeta.iter().all(|e| e["tenant"] == "zeta"), "{of_zeta:#?}");
    // A deletion of what is not there is no news, and would let anybody push out what is.
    assert!(of_zeta.iter().all(|e| e["action"] != "locker.delete"), "{of_zeta:#?}");
    assert!(admin.list("/v1/admin/audit?since=2999-01-01T00:00:00Z").is_empty());
    assert_eq!(
        admin.get("/v1/admin/audit?limit=1").send().expect(200)["items"].as_array().map(Vec::len),
        Some(1)
    );
    for bad in ["since=yesterday", "tenant=Not%20One", "limit=0", "cursor=x"] {
        admin.get(&format!("/v1/admin/audit?{bad}")).error(400, "validation_error");
    }
}

#[test]
fn what_rules_deny_is_refused_and_in_the_log() {
    let config = json!({ "reason": "closed for the night", "but": ["locker.create", "locker.files.write", "locker.delete"] });
    let bay = Bay::start(Options::default().fixture("rules-default", "deny-all", config));
    let api = bay.api();
    let locker = api.locker(json!({}));
    locker.files("write", &json!({ "path": "f", "content": "x" })).send().expect(200);
    locker.files("read", &json!({ "path": 1 })).bad_fields(&["path"]);
    for operation in ["read", "list", "delete"] {
        locker.files(operation, &json!({ "path": "f" })).error(403, "denied_by_rule");
    }
    locker.call("PATCH").json(&json!({ "name": "n" })).error(403, "denied_by_rule");
    api.post("/v1/sandboxes", &json!({ "start": "lazy" })).error(403, "denied_by_rule");
    let entries = api.list("/v1/admin/audit");
    let has = |action: &str, outcome: &str| {
        entries.iter().filter(|e| e["action"] == action && e["outcome"] == outcome).count()
    };
    assert_eq!(has("locker.files.write", "ok"), 1, "{entries:#?}");
    assert_eq!(has("locker.files.delete", "denied_by_rule"), 1, "{entries:#?}");
    assert_eq!(has("rules.deny", "denied_by_rule"), 2, "{entries:#?}");
    let denied = entries.iter().find(|e| e["action"] == "rules.deny").unwrap();
    assert_eq!(denied["detail"], "POST /v1/sandboxes: rules-default");
    assert!(
        !json!(entries).to_string().contains("closed for the night"),
        "a rule's words stay with its caller"
    );
}
