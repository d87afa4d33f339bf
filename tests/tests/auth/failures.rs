//! What becomes of an address that goes on with a wrong key.

use bay_tests::{Bay, Client, Options};
use serde_json::json;

#[test]
fn wrong_keys_are_slowed_down_and_right_ones_are_not() {
    let options = Options::default().config(json!({ "server": { "failed_auth_per_minute": 3 } }));
    let bay = Bay::start(options);
    let wrong = Client::new(bay.addr(), Some("bay_wrong"));
    let wrong_token = Client::new(bay.addr(), Some("bst_wrong.token"));
    for _ in 0..3 {
        wrong.get("/v1/sandboxes").error(401, "unauthorized");
    }
    for client in [&wrong, &wrong_token] {
        let answer = client.get("/v1/sandboxes").send();
        let body = answer.expect(429);
        assert_eq!(body["error"]["code"], "rate_limited", "{body}");
        let wait: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
    }
    // Others behind the same address go on, and no key at all is no wrong key.
    bay.api().get("/v1/sandboxes").send().expect(200);
    bay.anonymous().get("/v1/sandboxes").error(401, "unauthorized");
    wrong.get("/health").send().expect(200);
}
