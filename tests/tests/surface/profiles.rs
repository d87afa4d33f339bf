//! The profiles that come with Bay, and what a bad configuration is told.

use std::path::Path;

use bay_tests::config::Profile;
use bay_tests::{Bay, Options, golden};
use serde_json::json;

#[test]
fn shipped_profiles_are_as_written_down() {
    let home = std::env::var("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR: run by cargo or nextest");
    let shipped = Path::new(&home).join("../profiles");
    let bay = Bay::start(Options::default().config(json!({ "profiles_dir": shipped })));
    let listed = bay.api().get("/v1/profiles").send().expect(200);
    golden::compare("profiles.json", &format!("{listed:#}\n"));
}

#[test]
fn a_bad_profile_is_refused_at_start_with_file_line_and_remedy() {
    let bad = [
        (Profile::shell().with(json!({ "nonsense": 1 })), "nonsense"),
        (Profile::shell().with(json!({ "idle_timeout": "soon" })), "idle_timeout"),
        (Profile::shell().container(json!({ "resources": { "memory": "1 elephant" } })), "memory"),
        (Profile::shell().container(json!({ "network": "everything" })), "network"),
        (Profile::shell().container(json!({ "capabilities": ["shell", "flying"] })), "flying"),
        (Profile::shell().container(json!({ "adapter": "adapter-nope" })), "adapter-nope"),
        (Profile::shell().container(json!({ "env": { "1X": "v" } })), "1X"),
    ];
    for (profile, named) in bad {
        let refused = Bay::try_start(Options::default().profile(profile)).expect_err(named);
        assert!(!refused.status.success());
        assert!(refused.log.contains(named), "it names {named}: {}", refused.log);
        assert!(refused.log.contains("shell-only.toml"), "it names the file: {}", refused.log);
        assert!(!refused.log.contains("panicked"), "{}", refused.log);
    }
}

#[test]
fn a_bad_configuration_is_refused_at_start() {
    for (config, named) in [
        (json!({ "nonsense": 1 }), "nonsense"),
        (json!({ "server": { "lisen": "127.0.0.1:0" } }), "lisen"),
        (json!({ "server": { "listen": "nowhere" } }), "listen"),
        (json!({ "driver": { "kind": "warp" } }), "kind"),
        (json!({ "plugins": { "rules-default": { "path": "/does/not/exist.wasm" } } }), "exist.wasm"),
        (json!({ "ship": { "path": "/does/not/exist" } }), "exist"),
    ] {
        let refused = Bay::try_start(Options::default().config(config)).expect_err(named);
        assert!(!refused.status.success());
        assert!(refused.log.contains(named), "it names {named}: {}", refused.log);
        assert!(!refused.log.contains("panicked"), "{}", refused.log);
    }
}
