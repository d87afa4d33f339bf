//! Health, readiness, profiles, housekeeping.

use std::time::Duration;

use bay_tests::{Bay, Options, until};
use serde_json::json;

#[test]
fn health_and_readiness_need_no_key_and_profiles_do() {
    let bay = Bay::any();
    let nobody = bay.anonymous();
    assert_eq!(nobody.get("/health").send().expect(200), json!({ "status": "ok" }));
    let ready = nobody.get("/ready").send();
    assert_eq!(ready.status, 200, "{}", ready.brief());
    // Without the scope: the word, no parts.
    let body = ready.json();
    let keys: Vec<_> = body.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["status"], "{body}");
    nobody.get("/v1/profiles").error(401, "unauthorized");
    let listed = bay.api().get("/v1/profiles").send().expect(200);
    let items = listed["items"].as_array().expect("items");
    let default = items.iter().find(|p| p["id"] == "python-default").expect("python-default is listed");
    for capability in ["python", "shell", "filesystem"] {
        let all = default["capabilities"].as_array().expect("capabilities");
        assert!(all.contains(&json!(capability)), "{default}");
    }
    for field in ["id", "image", "resources", "capabilities", "idle_timeout", "max_ttl", "description"] {
        assert!(default.get(field).is_some(), "{field} is missing: {default}");
    }
    assert!(default["resources"]["cpus"].is_number(), "{default}");
}

#[test]
fn housekeeping_is_done_when_an_operator_asks_for_it() {
    let house = json!({ "housekeeping": { "every": "1h", "expired_grace": "0s", "idempotency_keep": "1s" } });
    let bay = Bay::start(Options::default().config(house));
    let api = bay.api();
    let status = api.get("/v1/admin/gc/status").send().expect(200);
    assert_eq!((&status["enabled"], &status["interval_seconds"]), (&json!(true), &json!(3600)), "{status}");
    let tasks =
        ["expired_idempotency_key", "expired_sandbox", "idle_session", "orphan_container", "orphan_locker"];
    let named: Vec<_> = status["tasks"].as_object().expect("tasks").keys().map(String::as_str).collect();
    assert_eq!(named, tasks);
    assert!(status["instance_id"].is_string() && status["is_running"].is_boolean(), "{status}");

    let body = json!({ "profile": "shell-only", "start": "lazy", "ttl": 1 });
    let made = api.post("/v1/sandboxes", &body).header("Idempotency-Key", "k").send().expect(201);
    let place = format!("/v1/sandboxes/{}", made["id"].as_str().unwrap());
    let run = |body: serde_json::Value| api.post("/v1/admin/gc/run", &body);
    let wanted = json!({ "tasks": ["expired_idempotency_key", "expired_sandbox"] });
    // Both have lived for a second, the sandbox exactly, the key's record a moment less or more.
    let mut cleaned = 0;
    until("both are gone", Duration::from_secs(10), || {
        let report = run(wanted.clone()).send();
        if report.status == 423 {
            return None;
        }
        let report = report.expect(200);
        assert_eq!(report["total_errors"], 0, "{report}");
        cleaned += report["total_cleaned"].as_u64().expect("a number");
        (cleaned == 2).then_some(())
    });
    api.get(&place).error(404, "not_found");
    let all = run(json!({})).send().expect(200);
    let order: Vec<_> =
        all["results"].as_array().expect("results").iter().map(|r| r["task_name"].clone()).collect();
    assert_eq!(order.len(), tasks.len(), "{all}");
    run(json!({ "tasks": ["everything"] })).bad_fields(&["tasks"]);
    run(json!({ "tasks": "all" })).bad_fields(&["tasks"]);
}
