//! A plugin that traps, spins, allocates without end, answers far too much or never replies: `502 plugin_error`
//! naming it, within its deadline, and nobody else notices.

use std::time::Duration;

use bay_tests::api::Call;
use bay_tests::config::Profile;
use bay_tests::{Bay, Options, Response, Sandbox};
use serde_json::json;

/// Modes and the `reason` they end with; empty where more than one would be right.
const PURE: &[(&str, &str)] = &[
    ("trap", "trap"),
    ("spin", "deadline"),
    ("alloc", "memory"),
    ("recurse", "trap"),
    ("block", "deadline"),
    ("huge", ""),
];
const RULES: &[(&str, &str)] = &[("nonsense", "contract"), ("not-an-object", "contract"), ("deep", "")];
const ROUTER: &[(&str, &str)] =
    &[("stranger", "contract"), ("other-adapter", "contract"), ("retries", "contract")];
const ADAPTER: &[(&str, &str)] = &[
    ("nonsense", "contract"),
    ("sleep", "steps"),
    ("sleep-long", "deadline"),
    ("ask-forever", "steps"),
    ("flood", "contract"),
    ("trap-later", "trap"),
    ("stranger", "contract"),
    ("authorization", "contract"),
    ("host", "contract"),
    ("split", "contract"),
    ("dotdot", "contract"),
    ("bad-fault", "contract"),
];

/// A pure call has a second, an adapter's operation its own timeout and 15 s; the rest is a slow machine.
const PURE_LIMIT: Duration = Duration::from_secs(8);
const ADAPTER_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn hostile_rules_are_named_and_contained() {
    let modes = [PURE, RULES].concat();
    let mut options = Options::default();
    for (mode, _) in &modes {
        let mut profile = Profile::shell().named(mode);
        profile.rules = vec!["rules-default".into(), format!("evil-{mode}")];
        options = options.profile(profile);
        options = options.fixture(&format!("evil-{mode}"), "hostile-rules", json!({ "mode": mode }));
    }
    let bay = Bay::start(options);
    let api = bay.api();
    let neighbour = api.sandbox(json!({ "profile": "shell-only" }));
    for (mode, reason) in &modes {
        let call = api.post("/v1/sandboxes", &json!({ "profile": mode, "start": "lazy" }));
        blamed(call, mode, reason, PURE_LIMIT);
        neighbour.unharmed();
    }
    assert_eq!(api.list("/v1/sandboxes").len(), 1, "rules fail closed: nothing was made");
}

#[test]
fn hostile_routers_are_named_and_contained() {
    let modes = [PURE, ROUTER].concat();
    let mut options = Options::default();
    for (mode, _) in &modes {
        let mut profile = Profile::shell().named(mode);
        profile.router = format!("evil-{mode}");
        options = options.profile(profile);
        options = options.fixture(&format!("evil-{mode}"), "hostile-router", json!({ "mode": mode }));
    }
    let bay = Bay::start(options);
    let api = bay.api();
    let neighbour = api.sandbox(json!({ "profile": "shell-only" }));
    for (mode, reason) in &modes {
        let sandbox = api.sandbox(json!({ "profile": mode, "start": "lazy" }));
        blamed(sandbox.post("shell/exec", &json!({ "command": "true" })), mode, reason, PURE_LIMIT);
        assert_eq!(sandbox.show()["session_seq"], 0, "{mode}: nothing starts without a route");
        neighbour.unharmed();
    }
}

#[test]
fn hostile_adapters_are_named_and_contained() {
    let modes = [PURE, ADAPTER].concat();
    let mut options = Options::default();
    for (mode, _) in &modes {
        let mut profile = Profile::shell().named(mode);
        profile.adapter = format!("evil-{mode}");
        options = options.profile(profile);
        options = options.fixture(&format!("evil-{mode}"), "hostile-adapter", json!({ "mode": mode }));
    }
    let bay = Bay::start(options);
    let api = bay.api();
    let neighbour = api.sandbox(json!({ "profile": "shell-only" }));
    // Each in turn: the sandboxes themselves are well, and a handful at once would only wait for one another.
    for (mode, reason) in &modes {
        let sandbox = api.sandbox(json!({ "profile": mode, "start": "wait" }));
        let call = sandbox.post("shell/exec", &json!({ "command": "true", "timeout": 1, "wait": 60 }));
        blamed(call, mode, reason, ADAPTER_LIMIT);
        neighbour.unharmed();
    }
}

#[test]
fn spinning_plugins_on_every_core_do_not_stop_bay() {
    let mut profile = Profile::shell().named("spin");
    profile.router = "spinner".into();
    let options =
        Options::default().profile(profile).fixture("spinner", "hostile-router", json!({ "mode": "spin" }));
    let bay = Bay::start(options);
    let api = bay.api();
    let neighbour = api.sandbox(json!({ "profile": "shell-only", "start": "wait" }));
    let spinner = api.sandbox(json!({ "profile": "spin", "start": "lazy" }));
    std::thread::scope(|s| {
        let spins: Vec<_> = (0..8)
            .map(|_| {
                let call = spinner.post("shell/exec", &json!({ "command": "true" }));
                s.spawn(move || call.send())
            })
            .collect();
        let mut asked = 0;
        while !spins.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let answer = neighbour.post("shell/exec", &json!({ "command": "echo through" })).send();
            assert_eq!(answer.expect(200)["stdout"], "through\n");
            assert!(answer.took < Duration::from_secs(5), "the neighbour waited {:?}", answer.took);
            asked += 1;
        }
        assert!(asked > 0);
        for spin in spins {
            let body = spin.join().expect("a call").expect(502);
            assert_eq!(
                body["error"]["details"],
                json!({ "plugin": "spinner", "reason": "deadline" }),
                "{body}"
            );
        }
    });
}

#[test]
fn an_amend_is_checked_as_if_the_client_had_sent_it() {
    let mut profile = Profile::shell().named("wild");
    profile.rules = vec!["wild".into()];
    let options = Options::default().profile(profile).fixture(
        "wild",
        "hostile-rules",
        json!({ "mode": "amend-wildly" }),
    );
    let bay = Bay::start(options);
    let api = bay.api();
    // `{"timeout": -5, "path": "/etc/passwd", "code": 7}` over whatever was asked.
    let sandbox: Sandbox = api.sandbox(json!({ "profile": "wild", "start": "lazy" }));
    for call in [
        sandbox.post("shell/exec", &json!({ "command": "true" })),
        sandbox.file("fine.txt"),
        sandbox.write_with(json!({ "path": "fine.txt", "content": "x" })),
    ] {
        let answer = call.send();
        assert!([400, 502].contains(&answer.status), "{}: {}", answer.asked, answer.brief());
        assert!(!answer.text().contains("root:"), "{}", answer.brief());
    }
    assert_eq!(sandbox.show()["session_seq"], 0);
}

#[track_caller]
fn blamed(call: Call, mode: &str, reason: &str, limit: Duration) {
    let answer: Response = call.send();
    let body = answer.expect(502);
    let error = &body["error"];
    assert_eq!(error["code"], "plugin_error", "{mode}: {body}");
    assert_eq!(error["details"]["plugin"], json!(format!("evil-{mode}")), "{mode}: {body}");
    if reason.is_empty() {
        assert!(error["details"]["reason"].as_str().is_some_and(|r| !r.is_empty()), "{mode}: {body}");
    } else {
        assert_eq!(error["details"]["reason"], reason, "{mode}: {body}");
    }
    assert_eq!(error["retryable"], false, "{mode}: an exec is not safe to repeat: {body}");
    assert!(answer.took < limit, "{mode}: took {:?}", answer.took);
}
