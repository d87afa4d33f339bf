//! A default component replaced or removed in `bay.toml`: the same binary, other behaviour.

use bay_tests::config::Profile;
use bay_tests::{Bay, Options};
use serde_json::json;

const DEFAULTS: [&str; 3] = ["rules-default", "router-default", "adapter-ship"];

#[test]
fn rules_named_in_the_configuration_take_the_defaults_place() {
    let config = json!({ "reason": "closed for the night", "but": ["sandbox.create", "sandbox.delete", "capability.filesystem.list_dir"] });
    let bay = Bay::start(Options::default().fixture("rules-default", "deny-all", config));
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let error = sandbox.post("shell/exec", &json!({ "command": "true" })).error(403, "denied_by_rule");
    assert_eq!(
        error["details"],
        json!({ "rule": "rules-default", "reason": "closed for the night" }),
        "{error}"
    );
    // A body that does not fit is told so first; what is denied starts nothing.
    sandbox.post("shell/exec", &json!({ "command": 1 })).bad_fields(&["command"]);
    assert_eq!(sandbox.show()["session_seq"], 0);
    assert!(bay.processes().is_empty());
    assert_eq!(sandbox.dir(".").send().expect(200)["entries"], json!([]));
}

#[test]
fn rules_that_amend_are_followed_and_their_answer_is_checked_like_a_clients() {
    let mut profile = Profile::python();
    profile.rules = vec!["rules-default".into(), "prelude".into()];
    let options = Options::default().profile(profile).fixture(
        "prelude",
        "amend-code",
        json!({ "prelude": "greeting = 'amended'" }),
    );
    let bay = Bay::start(options);
    let sandbox = bay.api().sandbox(json!({}));
    assert_eq!(sandbox.python_ok("print(greeting)"), "amended");
    assert_eq!(sandbox.shell_ok("echo untouched"), "untouched");
}

#[test]
fn a_router_and_an_adapter_named_in_the_configuration_take_the_defaults_place() {
    let options = Options::default().fixture("router-default", "router-first", json!({})).fixture(
        "adapter-ship",
        "hostile-adapter",
        json!({ "mode": "behave" }),
    );
    let bay = Bay::start(options);
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    // The stand-in answers with nothing of its own; what the host adds is there.
    let ran = sandbox.post("shell/exec", &json!({ "command": "echo real" })).send().expect(200);
    assert_eq!(ran["stdout"], json!(null), "{ran}");
    assert_eq!(ran["session_seq"], 1, "{ran}");
    let log = bay.log();
    for name in ["router-default", "adapter-ship"] {
        assert!(log.contains(name), "the log says what was loaded: {log}");
    }
}

#[test]
fn an_adapter_with_a_capability_of_its_own_is_served_without_a_change_of_the_host() {
    let echo = Profile::shell().named("echo").container(json!({
        "adapter": "echo", "capabilities": ["demo_echo"], "primary_for": ["demo_echo"],
    }));
    let bay = Bay::start(Options::default().profile(echo).fixture("echo", "adapter-echo", json!({})));
    let sandbox = bay.api().sandbox(json!({ "profile": "echo" }));
    assert_eq!(sandbox.show()["capabilities"], json!(["demo_echo"]));
    let said = sandbox.post("demo_echo/echo", &json!({ "a": [1, "b"] })).send();
    let body = said.expect(200);
    assert_eq!(body["echo"], json!({ "a": [1, "b"] }), "{body}");
    assert_eq!(body["request_id"].as_str(), said.header("x-request-id"));
    // The runtime behind it could do more; the profile does not declare it.
    sandbox.post("shell/exec", &json!({ "command": "true" })).error(400, "capability_not_supported");
    sandbox.file("a").error(400, "capability_not_supported");
    sandbox.post("demo_echo/other", &json!({})).error(404, "not_found");
}

#[test]
fn without_a_default_a_profile_that_names_it_is_refused_and_others_work() {
    for name in DEFAULTS {
        let options = Options::default().config(json!({ "plugins": { name: { "enabled": false } } }));
        let refused = Bay::try_start(options).expect_err(name);
        assert!(!refused.status.success());
        assert!(refused.log.contains(name), "it names {name}: {}", refused.log);
        assert!(refused.log.contains("python-default.toml"), "it names the profile's file: {}", refused.log);
    }
    // All three gone, and others in their places under other names.
    let stand_in = |mut profile: Profile| {
        profile.rules = vec!["open".into()];
        profile.router = "first".into();
        profile.adapter = "mine".into();
        profile
    };
    let mut options = Options {
        profiles: vec![stand_in(Profile::python()), stand_in(Profile::shell())],
        ..Options::default()
    };
    for name in DEFAULTS {
        options = options.config(json!({ "plugins": { name: { "enabled": false } } }));
    }
    let options = options
        .fixture("open", "hostile-rules", json!({ "mode": "behave" }))
        .fixture("first", "router-first", json!({}))
        .fixture("mine", "hostile-adapter", json!({ "mode": "behave" }));
    let bay = Bay::start(options);
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    assert_eq!(
        sandbox.post("shell/exec", &json!({ "command": "true" })).send().expect(200)["session_seq"],
        1
    );
}

#[test]
fn what_is_no_plugin_is_refused_at_start_in_words() {
    let cases = [
        ("not a component", &b"this is no wasm"[..]),
        ("an empty file", &b""[..]),
        ("a core module", &b"\0asm\x01\0\0\0"[..]),
        ("an empty component", &b"\0asm\x0d\0\x01\0"[..]),
    ];
    for (what, bytes) in cases {
        let options = Options::default().plugin("rules-default", bytes, json!({}));
        let refused = Bay::try_start(options).expect_err(what);
        assert!(!refused.status.success());
        assert!(refused.log.contains("rules-default"), "{what}: it names the plugin: {}", refused.log);
        assert!(!refused.log.contains("panicked"), "{what}: {}", refused.log);
    }
    // The right kind of file in the wrong place.
    let refused = Bay::try_start(Options::default().fixture("rules-default", "router-first", json!({})));
    let refused = refused.expect_err("a router where rules belong");
    assert!(refused.log.contains("rules-default"), "{}", refused.log);
    // A configuration that the plugin itself refuses.
    let options =
        Options::default().fixture("rules-default", "hostile-rules", json!({ "mode": "refuse-config" }));
    let refused = Bay::try_start(options).expect_err("a refused configuration");
    assert!(refused.log.contains("not with this configuration"), "{}", refused.log);
}
