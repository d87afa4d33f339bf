//! The order of a call's stages, as `Server-Timing` shows it: what is refused early passes nothing later.

use bay_tests::http::Response;
use bay_tests::{Bay, Options};
use serde_json::json;

/// The names in `Server-Timing`, in order; each with a time that is one.
fn stages(response: &Response) -> Vec<String> {
    let header = response.header("server-timing").unwrap_or_default();
    let entries = header.split(", ").filter(|e| !e.is_empty());
    entries
        .map(|entry| {
            let (name, took) = entry.split_once(";dur=").unwrap_or_else(|| panic!("{header}"));
            assert!(took.parse::<f64>().is_ok_and(|ms| ms >= 0.0), "{header}");
            name.to_owned()
        })
        .collect()
}

#[test]
fn a_call_passes_its_stages_in_order_and_a_refusal_stops_where_it_belongs() {
    let rules = json!({ "blocked_words": ["forbidden-word"] });
    let bay =
        Bay::start(Options::default().config(json!({ "plugins": { "rules-default": { "config": rules } } })));
    let api = bay.api();
    let sandbox = api.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));

    let missing =
        api.post("/v1/sandboxes/sbx_00000000000000000000000000/shell/exec", &json!({ "command": "true" }));
    assert_eq!(stages(&missing.send()), ["admit"]);
    let undeclared = sandbox.post("python/exec", &json!({ "code": "1" })).send();
    assert_eq!((undeclared.status, stages(&undeclared)), (400, vec!["admit".to_owned()]));
    let unfit = sandbox.post("shell/exec", &json!({ "command": 1 })).send();
    assert_eq!((unfit.status, stages(&unfit)), (400, vec!["admit".to_owned()]));
    let denied = sandbox.post("shell/exec", &json!({ "command": "echo forbidden-word" })).send();
    assert_eq!((denied.status, stages(&denied)), (403, vec!["admit".to_owned(), "rules".to_owned()]));
    // Nothing of this started anything.
    assert_eq!(sandbox.show()["session_seq"], 0);

    let ran = sandbox.post("shell/exec", &json!({ "command": "echo ran" })).send();
    assert_eq!(ran.expect(200)["stdout"], "ran\n");
    assert_eq!(stages(&ran), ["admit", "rules", "route", "record", "start", "adapt"]);
}
