//! Create, start, stop, destroy; and everything that can come between.

use std::time::Instant;

use bollard::query_parameters::KillContainerOptionsBuilder;

use super::super::*;
use super::harness::*;
use crate::config::Connect;

const MODES: [Connect; 3] = [Connect::Socket, Connect::HostPort, Connect::ContainerNetwork];

#[tokio::test]
async fn every_mode_reaches_the_runtime_with_every_network_and_leaves_nothing() {
    for mode in MODES {
        let bay = Bay::new(mode);
        for network in [Network::None, Network::Egress, Network::Internal] {
            let spec = bay.spec("ship", network);
            let container = bay.run(&spec).await;
            let driver = &bay.driver;
            assert_eq!(
                driver.inspect(&container).await.unwrap(),
                ContainerStatus::Running,
                "{mode:?} {network:?}"
            );
            let found = driver.list().await.unwrap();
            assert_eq!(found.iter().map(|c| &c.name).collect::<Vec<_>>(), [&spec.name]);
            let waiting = tokio::spawn({
                let (driver, container) = (Arc::clone(driver), container.clone());
                async move { driver.wait(&container).await }
            });
            driver.stop(&container, PATIENCE).await.unwrap();
            let ended = ContainerStatus::Exited { reason: "exit 0".to_owned() };
            assert_eq!(waiting.await.unwrap().unwrap(), ended);
            assert_eq!(driver.inspect(&container).await.unwrap(), ended);
            driver.stop(&container, Duration::ZERO).await.unwrap();
            driver.destroy(&container).await.unwrap();
            driver.destroy(&container).await.unwrap();
            assert_eq!(driver.inspect(&container).await.unwrap(), ContainerStatus::Missing);
            assert_eq!(driver.wait(&container).await.unwrap(), ContainerStatus::Missing);
            driver.volume_remove(&spec.volume).await.unwrap();
            driver.volume_remove(&spec.volume).await.unwrap();
            assert_eq!(bay.leftovers().await, Vec::<String>::new(), "{mode:?} {network:?}");
            assert!(!bay.dir().join("run/docker").join(&spec.name).exists());
        }
    }
}

#[tokio::test]
async fn a_death_is_known_within_a_second_by_this_bay_and_the_next() {
    let bay = Bay::new(Connect::Socket);
    let container = bay.run(&bay.spec("ship", Network::None)).await;
    let later = Arc::new(bay.again());
    later.health().await.unwrap();
    prove(later.clone(), &container).await;
    let by_name = ContainerRef { name: container.name.clone(), backend: serde_json::Value::Null };
    let waits = [(bay.driver.clone(), container.clone()), (later, by_name)].map(|(driver, container)| {
        tokio::spawn(async move {
            let ended = driver.wait(&container).await;
            (ended, Instant::now())
        })
    });
    // Both have looked once and wait for events.
    tokio::task::yield_now().await;
    bay.driver.inspect(&container).await.unwrap();
    let killed = Instant::now();
    let kill = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    bay.contact().await.docker.kill_container(&container.name, Some(kill)).await.unwrap();
    for wait in waits {
        let (ended, at) = tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
        assert_eq!(ended.unwrap(), ContainerStatus::Exited { reason: "SIGKILL".to_owned() });
        assert!(at - killed < Duration::from_secs(1), "{:?}", at - killed);
    }
}

#[tokio::test]
async fn a_paused_container_can_be_stopped_and_one_removed_by_hand_is_missing() {
    let bay = Bay::new(Connect::Socket);
    let container = bay.run(&bay.spec("ship", Network::None)).await;
    let docker = bay.contact().await.docker.clone();
    docker.pause_container(&container.name).await.unwrap();
    assert_eq!(bay.driver.inspect(&container).await.unwrap(), ContainerStatus::Running);
    bay.driver.stop(&container, Duration::from_millis(200)).await.unwrap();
    assert!(matches!(bay.driver.inspect(&container).await.unwrap(), ContainerStatus::Exited { .. }));
    let with_its_volumes = bollard::query_parameters::RemoveContainerOptionsBuilder::new().v(true).build();
    docker.remove_container(&container.name, Some(with_its_volumes)).await.unwrap();
    assert_eq!(bay.driver.wait(&container).await.unwrap(), ContainerStatus::Missing);
    bay.driver.stop(&container, PATIENCE).await.unwrap();
    bay.driver.destroy(&container).await.unwrap();
}

#[tokio::test]
async fn five_at_once_start_in_a_daemon_that_has_nothing_yet() {
    let bay = Bay::new(Connect::ContainerNetwork);
    let specs: Vec<_> = (0..5).map(|n| bay.spec(&format!("ship{n}"), Network::None)).collect();
    let containers = futures::future::join_all(specs.iter().map(|spec| bay.run(spec))).await;
    for container in &containers {
        assert_eq!(bay.driver.inspect(container).await.unwrap(), ContainerStatus::Running);
    }
}

#[tokio::test]
async fn a_creation_that_nobody_waits_for_is_found_by_name() {
    let bay = Bay::new(Connect::HostPort);
    // The runtime is there, so that what follows is the creation alone.
    let first = bay.driver.create(&bay.spec("first", Network::Egress)).await.unwrap();
    bay.driver.destroy(&first).await.unwrap();
    for patience in [0, 2, 10, 30, 60, 120] {
        let spec = bay.spec("ship", Network::Egress);
        let create = bay.driver.create(&spec);
        let _left = tokio::time::timeout(Duration::from_millis(patience), create).await;
        let named = ContainerRef { name: spec.name.clone(), backend: serde_json::Value::Null };
        bay.driver.destroy(&named).await.unwrap();
        let left = bay.leftovers().await;
        assert!(left.iter().all(|name| names::is_locker(name)), "{left:?}");
    }
}

#[tokio::test]
async fn containers_of_a_session_share_its_network_and_the_last_takes_it_along() {
    let bay = Bay::new(Connect::ContainerNetwork);
    let (one, other) = (bay.spec("one", Network::Internal), bay.spec("other", Network::Internal));
    let (first, second) = (bay.run(&one).await, bay.run(&other).await);
    let network = |container: &ContainerRef| Backend::of(container).unwrap().network.unwrap();
    assert_eq!(network(&first), network(&second));
    bay.driver.destroy(&first).await.unwrap();
    bay.prove(&second).await;
    bay.driver.destroy(&second).await.unwrap();
    assert!(bay.leftovers().await.iter().all(|name| names::is_locker(name)));
}

#[tokio::test]
async fn a_volume_in_use_is_not_removed_and_its_size_is_known() {
    let bay = Bay::new(Connect::Socket);
    let spec = bay.spec("ship", Network::None);
    let container = bay.run(&spec).await;
    let error = bay.driver.volume_remove(&spec.volume).await.unwrap_err();
    assert!(error.to_string().contains("still uses it"), "{error}");
    assert!(bay.driver.volume_usage(&spec.volume).await.unwrap().is_some());
    assert!(matches!(bay.driver.volume_usage("bay-locker-none").await, Err(DriverError::Missing(_))));
    assert!(matches!(bay.driver.volume_remove("somebody-elses").await, Err(DriverError::Missing(_))));
    bay.driver.destroy(&container).await.unwrap();
    bay.driver.volume_remove(&spec.volume).await.unwrap();
}
