//! rules-default and router-default, and the examples that can stand in their place.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod common;

use std::time::Duration;

use bay_plugin_host::{HostOptions, Plugin, PluginHost, PluginSpec, Route, RouteAnswer, Source, Verdict};
use common::*;
use proptest::prelude::*;
use serde_json::json;

fn denied(verdict: Verdict) -> String {
    let Verdict::Deny { reason } = verdict else { panic!("{verdict:?}") };
    reason
}

#[tokio::test]
async fn without_configuration_everything_is_allowed() {
    let plugin = rules("rules-default", serde_json::Value::Null).await;
    for action in ["sandbox.create", "capability.shell.exec", "", "something.new"] {
        let admission = admission(action, json!({ "command": "rm -rf /" }));
        assert_eq!(plugin.admit(&admission).await.unwrap(), Verdict::Allow);
    }
}

#[tokio::test]
async fn denied_actions_are_exact_or_beneath_a_prefix() {
    let plugin =
        rules("rules-default", json!({ "deny_actions": ["sandbox.create", "capability.shell.*"] })).await;
    for (action, allowed) in [
        ("sandbox.create", false),
        ("sandbox.create.more", true),
        ("capability.shell.exec", false),
        ("capability.shellfish.exec", true),
        ("capability.python.exec", true),
    ] {
        let verdict = plugin.admit(&admission(action, json!({}))).await.unwrap();
        assert_eq!(verdict == Verdict::Allow, allowed, "{action}");
    }
}

#[tokio::test]
async fn blocked_words_are_looked_for_in_what_runs() {
    let plugin = rules("rules-default", json!({ "blocked_words": ["rm -rf /", "naïve"] })).await;
    let ask = |input| {
        let admission = admission("capability.shell.exec", input);
        let plugin = plugin.clone();
        async move { plugin.admit(&admission).await.unwrap() }
    };
    let reason = denied(ask(json!({ "command": "sudo rm -rf / --now" })).await);
    assert_eq!(reason, "`command` contains `rm -rf /`, which is blocked here");
    assert!(denied(ask(json!({ "code": "a naïve one" })).await).contains("`code`"));
    assert_eq!(ask(json!({ "content": "rm -rf /", "command": "ls" })).await, Verdict::Allow);
    assert_eq!(ask(json!({ "command": 7 })).await, Verdict::Allow);
}

#[tokio::test]
async fn a_configuration_that_would_match_everything_is_refused() {
    let error = load("rules-default", json!({ "blocked_words": [""] })).await.unwrap_err().to_string();
    assert!(error.contains("would match everything"), "{error}");
    let error = load("router-default", json!({ "retries": 4 })).await.unwrap_err().to_string();
    assert!(error.contains("0 to 3"), "{error}");
}

async fn chosen(containers: Vec<bay_plugin_host::ContainerFacts>) -> String {
    let plugin = router("router-default", json!({})).await;
    match plugin.route(&route_request("python", containers)).await.unwrap() {
        RouteAnswer::Route(Route { container, adapter, timeout_ms: None, retries: 1 }) => {
            assert_eq!(adapter, format!("adapter-{container}"));
            container
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_router_takes_the_capable_then_the_healthy_then_the_primary_then_the_first() {
    let plain = |name: &str| container(name, &["python"]);
    let primary = |name: &str| {
        let mut c = plain(name);
        c.primary_for.push("python".into());
        c
    };
    let sick = |mut c: bay_plugin_host::ContainerFacts| {
        c.healthy = Some(false);
        c
    };
    assert_eq!(chosen(vec![container("web", &["browser"]), plain("a"), plain("b")]).await, "a");
    assert_eq!(chosen(vec![plain("a"), primary("b")]).await, "b");
    assert_eq!(chosen(vec![sick(primary("a")), plain("b")]).await, "b");
    assert_eq!(chosen(vec![sick(plain("a")), sick(primary("b"))]).await, "b");
    let mut known = plain("b");
    known.healthy = Some(true);
    assert_eq!(chosen(vec![plain("a"), known]).await, "a", "not known is not sick");
}

#[tokio::test]
async fn where_nobody_can_the_router_says_so() {
    let plugin = router("router-default", json!({})).await;
    for containers in [vec![], vec![container("web", &["browser"])]] {
        let answer = plugin.route(&route_request("python", containers)).await.unwrap();
        let RouteAnswer::Unroutable { reason } = answer else { panic!("{answer:?}") };
        assert_eq!(reason, "no container of this session offers `python`");
    }
}

#[tokio::test]
async fn examples_stand_in_for_defaults_from_a_file() {
    let spec = PluginSpec::new(
        "rules-default",
        Source::File(bay_fixtures::component("deny-all")),
        json!({ "reason": "closed", "but": ["sandbox.read"] }),
    );
    let Plugin::Rules(plugin) = host().load(spec).await.unwrap() else { panic!("rules") };
    assert_eq!(plugin.name(), "rules-default");
    assert_eq!(denied(plugin.admit(&admission("sandbox.create", json!({}))).await.unwrap()), "closed");
    assert_eq!(plugin.admit(&admission("sandbox.read", json!({}))).await.unwrap(), Verdict::Allow);

    let first = router("router-first", json!({})).await;
    let mut sick = container("a", &["python"]);
    sick.healthy = Some(false);
    let answer =
        first.route(&route_request("python", vec![sick, container("b", &["python"])])).await.unwrap();
    assert!(matches!(answer, RouteAnswer::Route(r) if r.container == "a" && r.retries == 0));

    let amend = rules("amend-code", json!({ "prelude": "import math" })).await;
    let verdict = amend.admit(&admission("capability.python.exec", json!({ "code": "1" }))).await.unwrap();
    assert_eq!(verdict, Verdict::Amend(json!({ "code": "import math\n1" })));

    let echo = adapter("adapter-echo", json!({})).await;
    let answer = reply(echo.run(call("demo_echo", "echo", json!({ "a": 1 })), &Canned::ok(), soon()).await);
    assert_eq!(answer, json!({ "echo": { "a": 1 }, "request_id": "r1" }));
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let path = std::path::Path::new("/nonexistent/x.wasm").to_path_buf();
    let error =
        host().load(PluginSpec::new("mine", Source::File(path), json!({}))).await.unwrap_err().to_string();
    assert!(error.contains("mine") && error.contains("/nonexistent/x.wasm"), "{error}");
}

/// What another process compiled is mapped, not compiled: an order of magnitude sooner.
#[tokio::test]
async fn a_second_host_on_the_same_cache_loads_the_same_plugins() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let host = PluginHost::new(HostOptions::new(dir.path().join("compiled"))).unwrap();
        for (name, bytes) in bay_embedded::COMPONENTS {
            let load = host.load(PluginSpec::new(*name, Source::Embedded(bytes), json!({})));
            let plugin = tokio::time::timeout(Duration::from_secs(60), load).await.unwrap().unwrap();
            assert_eq!((plugin.name(), plugin.digest().len()), (*name, 64));
        }
    }
    assert_eq!(
        std::fs::read_dir(dir.path().join("compiled")).unwrap().count(),
        6,
        "code and digest of three"
    );
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,12}", Just("python".to_owned()), Just("capability.python.exec".to_owned())]
}

fn any_container() -> impl Strategy<Value = bay_plugin_host::ContainerFacts> {
    let words = || prop::collection::vec(text(), 0..4);
    (text(), text(), words(), words(), any::<Option<bool>>()).prop_map(
        |(name, adapter, capabilities, primary_for, healthy)| bay_plugin_host::ContainerFacts {
            name,
            adapter,
            capabilities,
            primary_for,
            healthy,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_admission_makes_the_rules_trap(action in text(), code in "\\PC{0,60}", words in prop::collection::vec("\\PC{1,3}", 0..3)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let plugin = rules("rules-default", json!({ "blocked_words": words, "deny_actions": [] })).await;
            let verdict = plugin.admit(&admission(&action, json!({ "code": code, "x": [null, 1.5, {}] }))).await.unwrap();
            let blocked = words.iter().any(|w| code.contains(w.as_str()));
            prop_assert_eq!(verdict != Verdict::Allow, blocked);
            Ok(())
        })?;
    }

    #[test]
    fn no_request_makes_the_router_trap_or_choose_wrongly(capability in text(), containers in prop::collection::vec(any_container(), 0..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let plugin = router("router-default", json!({})).await;
            let request = route_request(&capability, containers);
            let able = request.containers.iter().any(|c| c.capabilities.contains(&capability));
            match plugin.route(&request).await {
                Ok(answer) => prop_assert_eq!(matches!(answer, RouteAnswer::Route(_)), able),
                // Two containers of one name: the session's profile forbids that; the check still holds.
                Err(e) => {
                    let mut names: Vec<_> = request.containers.iter().map(|c| &c.name).collect();
                    names.sort();
                    let count = names.len();
                    names.dedup();
                    prop_assert!(names.len() < count, "{e}");
                }
            }
            Ok(())
        })?;
    }
}
