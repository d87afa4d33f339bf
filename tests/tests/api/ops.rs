//! Health, readiness, profiles.

use bay_tests::Bay;
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
