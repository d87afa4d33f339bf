//! `allow_anonymous`, for development on one's own machine only.

use bay_tests::{Bay, Client, Options};
use serde_json::json;

fn anonymous() -> Options {
    Options::default().config(json!({ "server": { "allow_anonymous": true } }))
}

#[test]
fn anonymous_callers_pick_a_tenant_by_name_and_see_only_its_sandboxes() {
    let bay = Bay::start(anonymous());
    let (nobody, acme) = (bay.anonymous(), bay.anonymous().with("X-Owner", "acme"));
    let body = json!({ "profile": "shell-only", "start": "lazy" });
    let mine = nobody.sandbox(body.clone());
    let theirs = acme.sandbox(body);
    assert_eq!(nobody.list("/v1/sandboxes").len(), 1);
    acme.get(&format!("/v1/sandboxes/{}", mine.id)).error(404, "not_found");
    nobody.get(&format!("/v1/sandboxes/{}", theirs.id)).error(404, "not_found");
    assert_eq!(nobody.with("X-Owner", "default").list("/v1/sandboxes")[0]["id"], json!(mine.id));
    for name in ["", "../x", "A B", "ä", &"x".repeat(200)] {
        let answer = nobody.with("X-Owner", name).get("/v1/sandboxes").send();
        assert_eq!(answer.status, 400, "{name:?}: {}", answer.brief());
    }
    // A key that is wrong is not the same as no key.
    nobody.with("Authorization", "Bearer wrong").get("/v1/sandboxes").error(401, "unauthorized");
    drop((mine, theirs));
}

#[test]
fn anonymous_callers_have_no_scope_but_sandboxes_and_their_tokens_are_bound_too() {
    let bay = Bay::start(anonymous());
    let (nobody, acme) = (bay.anonymous(), bay.anonymous().with("X-Owner", "acme"));
    nobody.get("/v1/admin/keys").error(403, "forbidden");
    nobody.post("/v1/admin/keys", &json!({ "scopes": ["admin"] })).error(403, "forbidden");
    assert!(nobody.get("/ready").send().json()["parts"].is_null());
    let sandbox = acme.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let made = sandbox.post("tokens", &json!({ "capabilities": ["filesystem"] })).send().expect(201);
    let page = Client::new(bay.addr(), made["token"].as_str());
    let files = format!("/v1/sandboxes/{}/filesystem/files", sandbox.id);
    page.get(&files).bad_fields(&["path"]);
    page.get("/v1/sandboxes").error(403, "forbidden");
    // Who shows a credential is not anonymous, and has the tenant of that.
    page.with("X-Owner", "acme").get(&files).bad_fields(&["X-Owner"]);
    bay.api().with("X-Owner", "acme").get("/v1/sandboxes").bad_fields(&["X-Owner"]);
}

#[test]
fn anonymous_refuses_to_start_where_others_could_reach_it() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let options = anonymous().config(json!({ "server": { "listen": listen } }));
        let refused = Bay::try_start(options).expect_err("it must not start");
        assert!(!refused.status.success(), "{}", refused.log);
        assert!(refused.log.contains("allow_anonymous"), "it says why: {}", refused.log);
    }
}
