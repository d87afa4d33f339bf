//! No daemon: everything says so, soon.

use std::time::Instant;

use super::super::*;
use super::harness::*;
use crate::config::DockerConfig;

fn nowhere(host: &str) -> Bay {
    Bay::with(DockerConfig { host: Some(host.to_owned()), ..DockerConfig::default() })
}

#[tokio::test]
async fn an_absent_daemon_is_no_reason_not_to_start_and_every_call_says_so() {
    for host in ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:9"] {
        let bay = nowhere(host);
        let (driver, begun) = (&bay.driver, Instant::now());
        let spec = bay.spec("ship", Network::None);
        let container = ContainerRef { name: spec.name.clone(), backend: serde_json::Value::Null };
        assert!(driver.features().networks.contains(&Network::Egress));
        let answers = [
            driver.health().await.err(),
            driver.create(&spec).await.err(),
            driver.stop(&container, PATIENCE).await.err(),
            driver.destroy(&container).await.err(),
            driver.inspect(&container).await.err(),
            driver.list().await.err(),
            driver.volume_create("lkr_1").await.err(),
        ];
        for answer in answers {
            let answer = answer.unwrap();
            assert!(matches!(answer, DriverError::Unavailable { .. }), "{answer}");
            assert!(answer.to_string().contains("DOCKER_HOST"), "{answer}");
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
        // An absent daemon is not a death.
        let wait = tokio::time::timeout(Duration::from_millis(300), driver.wait(&container));
        assert!(wait.await.is_err());
    }
}

#[tokio::test]
async fn a_daemon_that_accepts_and_says_nothing_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let bay = nowhere(&format!("unix://{}", socket.display()));
    let begun = Instant::now();
    let (first, second) = tokio::join!(bay.driver.health(), bay.driver.list());
    assert!(matches!(first, Err(DriverError::Unavailable { .. })));
    assert!(matches!(second, Err(DriverError::Unavailable { .. })));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_an_error_at_once() {
    let bay = nowhere("unix:///nowhere/docker.sock");
    for (host, pool) in [("ssh://somewhere", "10.213.0.0/16"), ("unix:///x", "8.8.8.0/24")] {
        let mut options = bay.options.clone();
        options.config.host = Some(host.to_owned());
        options.config.subnet_pool = pool.to_owned();
        let error = DockerDriver::new(&options).err().unwrap();
        assert!(error.to_string().contains("[docker]"), "{error}");
    }
}
