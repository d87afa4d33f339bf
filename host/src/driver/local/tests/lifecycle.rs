//! Create, start, stop, destroy; and everything that can come between.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use bay_ship_api::init::Isolation;
use serde_json::json;

use super::super::state::State;
use super::super::*;
use super::harness::*;
use crate::driver::Network;

#[tokio::test]
async fn the_configuration_arrives_with_what_only_the_driver_knows() {
    let bay = Bay::new();
    let mut large = config();
    large.env.insert("LARGE".to_owned(), "x".repeat(600_000));
    bay.driver.volume_create("lkr-c").await.unwrap();
    let container = bay.run_with(&spec("c"), &large).await;
    let seen = bay.init(&container, "answer = {k: v for k, v in config.items() if k != 'env'} | {'large': len(config['env']['LARGE'])}").await;
    assert_eq!(seen["large"], 600_000);
    assert_eq!(seen["network"], json!({"mode": "none"}));
    assert_eq!(seen["isolation"], if is_root() { json!("two_uid") } else { json!("nested_pid") });
    assert_eq!(seen["limits"]["enforce"], !bay.driver.enforces_limits());
    assert_eq!(
        bay.driver.features().isolation,
        if is_root() { Isolation::TwoUid } else { Isolation::NestedPid }
    );
    assert_eq!(seen["token"], "00".repeat(32));
}

#[tokio::test]
async fn stop_is_polite_first_and_destroy_leaves_nothing() {
    let bay = Bay::new();
    let container = bay.run("polite").await;
    assert_eq!(bay.driver.inspect(&container).await.unwrap(), ContainerStatus::Running);
    let waiting = tokio::spawn({
        let (driver, container) = (bay.driver.clone(), container.clone());
        async move { driver.wait(&container).await }
    });
    bay.driver.stop(&container, PATIENCE).await.unwrap();
    let ended = ContainerStatus::Exited { reason: "exit 0".to_owned() };
    assert_eq!(waiting.await.unwrap().unwrap(), ended);
    assert_eq!(bay.driver.inspect(&container).await.unwrap(), ended);
    assert!(
        String::from_utf8(bay.driver.logs(&container, 100).await.unwrap()).unwrap().contains("stand-in runs")
    );
    assert!(bay.driver.dial(&container, 1).await.is_err());
    bay.driver.stop(&container, Duration::ZERO).await.unwrap();
    let state: State = serde_json::from_value(container.backend.clone()).unwrap();
    bay.driver.destroy(&container).await.unwrap();
    bay.driver.destroy(&container).await.unwrap();
    assert_eq!(bay.driver.inspect(&container).await.unwrap(), ContainerStatus::Missing);
    assert_eq!(bay.driver.wait(&container).await.unwrap(), ContainerStatus::Missing);
    assert!(bay.driver.list().await.unwrap().is_empty());
    for group in state.groups {
        assert!(!group.path.exists(), "{}", group.path.display());
    }
}

#[tokio::test]
async fn whoever_is_deaf_to_politeness_is_killed_with_all_its_children() {
    let bay = Bay::new();
    let mut deaf = config();
    deaf.env.insert("DEAF".to_owned(), "1".to_owned());
    bay.driver.volume_create("lkr-deaf").await.unwrap();
    let container = bay.run_with(&spec("deaf"), &deaf).await;
    // A child in a session of its own, with its own idea of signals.
    bay.init(&container, "import subprocess\nsubprocess.Popen(['/bin/sh', '-c', 'trap \"\" TERM HUP INT; while :; do sleep 1; done'], start_new_session=True)\nanswer = 0").await;
    bay.driver.stop(&container, Duration::from_millis(50)).await.unwrap();
    assert_eq!(
        bay.driver.wait(&container).await.unwrap(),
        ContainerStatus::Exited { reason: "SIGKILL".to_owned() }
    );
}

#[tokio::test]
async fn a_stopped_container_starts_again_in_place() {
    let bay = Bay::new();
    let container = bay.run("twice").await;
    assert!(bay.driver.start(&container, &spec("twice"), &config()).await.is_err(), "it runs already");
    bay.driver.stop(&container, PATIENCE).await.unwrap();
    let again = bay.driver.start(&container, &spec("twice"), &config()).await.unwrap();
    assert_ne!(again.backend, container.backend);
    assert_eq!(bay.init(&again, "answer = 6 * 7").await, 42);
}

#[tokio::test]
async fn another_bay_adopts_what_runs() {
    let bay = Bay::new();
    let container = bay.run("kept").await;
    bay.init(&container, "state['x'] = 41\nanswer = 0").await;
    let later = bay.again();
    let found = later.list().await.unwrap();
    assert_eq!(found, std::slice::from_ref(&container));
    assert_eq!(later.inspect(&found[0]).await.unwrap(), ContainerStatus::Running);
    assert_eq!(ask(&later, &found[0], "answer = state['x'] + 1", false).await, 42);
    let waiting = tokio::spawn({
        let later = later.clone();
        async move { later.wait(&found[0]).await }
    });
    bay.driver.stop(&container, PATIENCE).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), ContainerStatus::Exited { reason: "exit 0".to_owned() });
}

/// Not a test by itself: a Bay to be killed, started by the next test.
#[tokio::test]
async fn a_bay_to_be_killed() {
    let Some(dir) = std::env::var_os("BAY_TEST_TO_BE_KILLED") else { return };
    let driver = open(std::path::Path::new(&dir));
    driver.volume_create("lkr-orphan").await.unwrap();
    let container = driver.create(&spec("orphan")).await.unwrap();
    let container = driver.start(&container, &spec("orphan"), &config()).await.unwrap();
    ask(&driver, &container, "state['x'] = 'still here'\nanswer = 0", false).await;
    std::fs::write(std::path::Path::new(&dir).join("ready"), "").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_sandbox_survives_the_sudden_death_of_its_bay() {
    let bay = Bay::new();
    let mut other = Command::new("/proc/self/exe")
        .args(only("lifecycle::a_bay_to_be_killed"))
        .env("BAY_TEST_TO_BE_KILLED", bay.dir.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the other Bay starts a sandbox", async || {
        assert!(other.try_wait().unwrap().is_none(), "the other Bay ended");
        bay.dir.path().join("ready").exists()
    })
    .await;
    other.kill().unwrap();
    assert_eq!(other.wait().unwrap().signal(), Some(9));
    let found = bay.driver.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(bay.driver.inspect(&found[0]).await.unwrap(), ContainerStatus::Running);
    assert_eq!(bay.init(&found[0], "answer = state['x']").await, "still here");
}

#[tokio::test]
async fn a_reused_pid_and_another_boot_are_not_taken_for_the_sandbox() {
    let bay = Bay::new();
    let container = bay.run("reuse").await;
    let (entry, state) = bay.driver.inner.load("reuse").unwrap().unwrap();
    let mut started = state.started.unwrap();
    // Somebody else has the number: this very test.
    started.init.pid = i32::try_from(std::process::id()).unwrap();
    entry.write_state(&State { started: Some(started), ..state.clone() }).unwrap();
    assert!(matches!(bay.driver.inspect(&container).await.unwrap(), ContainerStatus::Exited { .. }));
    bay.driver.stop(&container, Duration::ZERO).await.unwrap();
    // Still alive to read this: nothing was signalled.
    entry.write_state(&State { boot_id: "another".to_owned(), ..state.clone() }).unwrap();
    assert_eq!(
        bay.driver.inspect(&container).await.unwrap(),
        ContainerStatus::Exited { reason: "the machine was restarted".to_owned() }
    );
    entry.write_state(&state).unwrap();
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    let bay = Bay::new();
    let mut broken = spec("broken");
    let container = bay.driver.create(&broken).await.unwrap();
    let missing = bay.driver.start(&container, &broken, &config()).await.unwrap_err();
    assert!(matches!(missing, DriverError::Missing(_)), "{missing}");
    bay.driver.volume_create("lkr-broken").await.unwrap();
    broken.python = "/nonexistent".to_owned();
    let error = bay.driver.start(&container, &broken, &config()).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
    broken.python = "auto".to_owned();
    broken.rootfs = bay.dir.path().to_str().unwrap().to_owned();
    let error = bay.driver.start(&container, &broken, &config()).await;
    // bubblewrap finds no usr there: either it says so before the sandbox is seen, or the sandbox ends at once.
    match error {
        Err(error) => {
            assert!(error.to_string().contains("usr") || error.to_string().contains("ended"), "{error}")
        }
        Ok(container) => {
            assert!(matches!(bay.driver.wait(&container).await.unwrap(), ContainerStatus::Exited { .. }));
        }
    }
    let log = String::from_utf8(bay.driver.logs(&container, 4000).await.unwrap()).unwrap();
    assert!(log.contains("usr"), "{log}");
    broken.rootfs = "host".to_owned();
    let container = bay.driver.start(&container, &broken, &config()).await.unwrap();
    assert_eq!(bay.init(&container, "answer = 1").await, 1);
}

#[tokio::test]
async fn a_create_that_fails_leaves_nothing() {
    let bay = Bay::new();
    for (name, volume) in [("../x", "v"), ("x", "../v"), ("", "v"), ("X", "v"), ("x", "/etc")] {
        let mut bad = spec("x");
        (bad.name, bad.volume) = (name.to_owned(), volume.to_owned());
        assert!(bay.driver.create(&bad).await.is_err(), "{name:?} {volume:?}");
    }
    let mut internal = spec("x");
    internal.network = Network::Internal;
    assert!(matches!(bay.driver.create(&internal).await.unwrap_err(), DriverError::Network { .. }));
    bay.driver.create(&spec("x")).await.unwrap();
    assert!(bay.driver.create(&spec("x")).await.is_err(), "names are unique");
    assert_eq!(bay.driver.list().await.unwrap().len(), 1);
    for id in ["../x", "", ".", "a/b", ".trash-x"] {
        assert!(bay.driver.volume_create(id).await.is_err(), "{id:?}");
        assert!(bay.driver.volume_remove(id).await.is_err(), "{id:?}");
    }
}

#[tokio::test]
async fn containers_that_were_never_started_are_listed_and_destroyed() {
    let bay = Bay::new();
    let container = bay.driver.create(&spec("idle")).await.unwrap();
    assert_eq!(
        bay.driver.inspect(&container).await.unwrap(),
        ContainerStatus::Exited { reason: "not started".to_owned() }
    );
    assert_eq!(bay.again().list().await.unwrap(), std::slice::from_ref(&container));
    bay.driver.destroy(&container).await.unwrap();
    assert!(bay.driver.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_tool_is_named_with_its_remedy() {
    let bay = Bay::new();
    let mut options = options(bay.dir.path());
    options.ship = "/nonexistent/ship".into();
    let error = LocalDriver::with_launcher(&options, launcher()).err().unwrap();
    assert!(matches!(&error, DriverError::Unavailable { .. }), "{error}");
}

/// As root: everything once more as somebody else.
#[test]
fn the_whole_suite_passes_as_a_normal_user() {
    if !is_root() {
        return;
    }
    let other = OtherUser::new();
    let module = module_path!().split_once("::").unwrap().1;
    let suite = module.split("::tests").next().unwrap();
    let output = other.command().args([suite, "--test-threads=2"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("no_switch_of_the_kernel_can_be_opened_for_writing ... ok"), "{text}");
}
