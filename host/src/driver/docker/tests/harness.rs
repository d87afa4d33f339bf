//! A driver in a directory of its own, on a real daemon, which is as before when the test ends.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bay_ship_api::handshake::Credentials;
use bay_ship_api::init::{DEFAULT_OUTPUT_LIMIT, InitConfig, Isolation, Limits, NetworkSetup};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};

use super::super::engine::Contact;
use super::super::*;
use crate::config::{Connect, DockerConfig};
use crate::driver::{DockerSpec, PullPolicy};
use crate::runtime::RuntimeClient;

/// Nothing here takes longer on a machine that is merely busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// What the containers of these tests listen on.
pub(super) const PORT: u16 = 8123;
/// Subnets of these tests, one pool a driver, so that none meets another.
static POOLS: AtomicU32 = AtomicU32::new(0);

/// The daemon for these tests.
pub(super) fn host() -> String {
    std::env::var("BAY_TEST_DOCKER_HOST")
        .expect("these tests need a Docker daemon: set BAY_TEST_DOCKER_HOST to its address (unix:///PATH)")
}

/// An image that is there.
pub(super) fn image() -> String {
    std::env::var("BAY_TEST_IMAGE").unwrap_or_else(|_| "bay/ship:slim".to_owned())
}

/// A driver and its directory.
pub(super) struct Bay {
    pub(super) driver: Arc<DockerDriver>,
    pub(super) options: DockerOptions,
    dir: tempfile::TempDir,
}

impl Bay {
    pub(super) fn new(connect: Connect) -> Self {
        let pool = 10_u32 + POOLS.fetch_add(1, Ordering::Relaxed) % 200;
        Self::with(DockerConfig {
            host: Some(host()),
            connect,
            // A part of its own for each process and test.
            subnet_pool: format!("10.{}.{pool}.0/24", 214 + std::process::id() % 8),
            ..DockerConfig::default()
        })
    }

    pub(super) fn with(config: DockerConfig) -> Self {
        let dir = tempfile::Builder::new().prefix("bay").tempdir().unwrap();
        let instance_id =
            format!("test{}", dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches("bay"));
        let options = DockerOptions {
            config,
            data_dir: dir.path().to_owned(),
            ship: ship(dir.path(), &instance_id),
            instance_id,
        };
        Self { driver: Arc::new(DockerDriver::new(&options).unwrap()), options, dir }
    }

    /// Another Bay on the same data, as after a restart.
    pub(super) fn again(&self) -> DockerDriver {
        DockerDriver::new(&self.options).unwrap()
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) async fn contact(&self) -> Arc<Contact> {
        self.driver.inner.engine.contact().await.unwrap()
    }

    /// A specification with names that only this test has.
    pub(super) fn spec(&self, role: &str, network: Network) -> ContainerSpec {
        let instance = self.options.instance_id.to_lowercase();
        let session = format!("{:0>26}", instance.trim_start_matches("test"));
        ContainerSpec {
            name: format!("bay-ses-{session}-1-{role}"),
            role: role.to_owned(),
            image: Some(image()),
            cpus: 1.0,
            memory: 256 << 20,
            pids: 128,
            network,
            volume: format!("bay-locker-{instance}-{role}"),
            labels: BTreeMap::from([("bay.instance".to_owned(), self.options.instance_id.clone())]),
            rootfs: "host".to_owned(),
            python: "auto".to_owned(),
            port: PORT,
            output: 1 << 20,
            docker: DockerSpec { pull: PullPolicy::Never, runtime: None, tmp: 16 << 20 },
        }
    }

    /// Makes a container's network alone; its name.
    pub(super) async fn network_of(&self, spec: &ContainerSpec, policy: Network) -> String {
        let contact = self.contact().await;
        self.driver.inner.network_create(&contact, &spec.name, policy).await.unwrap().name
    }

    pub(super) async fn run(&self, spec: &ContainerSpec) -> ContainerRef {
        let id = spec.volume.strip_prefix("bay-locker-").unwrap();
        assert_eq!(self.driver.volume_create(id).await.unwrap(), spec.volume);
        let container = self.driver.create(spec).await.unwrap();
        let container = self.driver.start(&container, spec, &config()).await.unwrap();
        self.prove(&container).await;
        container
    }

    /// The runtime of the container answers, and is ours.
    pub(super) async fn prove(&self, container: &ContainerRef) {
        let driver: Arc<dyn Driver> = self.driver.clone();
        prove(driver, container).await;
    }

    /// Everything of ours that the daemon has: containers, networks, volumes.
    pub(super) async fn leftovers(&self) -> Vec<String> {
        leftovers(&*self.contact().await, &self.options.instance_id).await
    }
}

pub(super) async fn prove(driver: Arc<dyn Driver>, container: &ContainerRef) {
    let client = RuntimeClient::new(Arc::clone(&driver), container.clone(), PORT, credentials());
    if let Err(error) = client.wait_ready(PATIENCE).await {
        let log = driver.logs(container, 4000).await.unwrap_or_default();
        panic!("{error}; {:?}; log: {}", container, String::from_utf8_lossy(&log));
    }
    let meta = client.meta(PATIENCE).await.unwrap();
    assert_eq!(meta.runtime.name, "ship");
}

async fn leftovers(contact: &Contact, instance: &str) -> Vec<String> {
    let filter = names::own_filter(instance);
    let all = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
    let containers = contact.docker.list_containers(Some(all)).await.unwrap();
    let mut left: Vec<String> = containers.into_iter().filter_map(|c| c.id).collect();
    let networks = ListNetworksOptionsBuilder::new().filters(&filter).build();
    left.extend(
        contact.docker.list_networks(Some(networks)).await.unwrap().into_iter().filter_map(|n| n.name),
    );
    let volumes = ListVolumesOptionsBuilder::new().filters(&filter).build();
    let volumes = contact.docker.list_volumes(Some(volumes)).await.unwrap().volumes;
    left.extend(volumes.into_iter().flatten().map(|v| v.name));
    left
}

/// The runtime with a few bytes behind its end: a volume of its own for each test.
fn ship(dir: &Path, mark: &str) -> PathBuf {
    let path = dir.join("ship-binary");
    std::fs::write(&path, [bay_embedded::SHIP, mark.as_bytes()].concat()).unwrap();
    path
}

fn credentials() -> Credentials {
    Credentials::derive(b"secret of these tests", "ses_1", 1)
}

pub(super) fn config() -> InitConfig {
    InitConfig {
        session: "ses_1".to_owned(),
        generation: 1,
        token: hex::encode(credentials().token()),
        isolation: Isolation::TwoUid,
        // More than a pipe holds at once.
        env: BTreeMap::from([("LARGE".to_owned(), "x".repeat(200_000))]),
        python: None,
        capabilities: vec!["shell".to_owned()],
        network: NetworkSetup::Enforced,
        limits: Limits { pids: 64, memory: 1 << 30, nofile: 256, enforce: false },
        output_limit: DEFAULT_OUTPUT_LIMIT,
    }
}

impl Drop for Bay {
    fn drop(&mut self) {
        let options = self.options.clone();
        if options.config.host != std::env::var("BAY_TEST_DOCKER_HOST").ok() {
            return;
        }
        let clear = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let driver = DockerDriver::new(&options).unwrap();
                let contact = driver.inner.engine.contact().await.unwrap();
                for container in driver.list().await.unwrap() {
                    driver.destroy(&container).await.unwrap();
                }
                for name in leftovers(&contact, &options.instance_id).await {
                    if names::is_locker(&name) {
                        driver.volume_remove(&name).await.unwrap();
                    } else if name.starts_with(names::NETWORK_PREFIX) {
                        contact.docker.remove_network(&name).await.unwrap();
                    } else {
                        let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                        contact.docker.remove_container(&name, Some(force)).await.unwrap();
                    }
                }
                // Made by the daemon itself, without a label, for a container whose volume nobody made.
                let mine = HashMap::from([("name".to_owned(), vec![options.instance_id.to_lowercase()])]);
                let mine = ListVolumesOptionsBuilder::new().filters(&mine).build();
                for volume in
                    contact.docker.list_volumes(Some(mine)).await.unwrap().volumes.unwrap_or_default()
                {
                    driver.volume_remove(&volume.name).await.unwrap();
                }
                // There was none when the test had no container.
                let _none =
                    contact.docker.remove_volume(driver.inner.ship.name(), None::<RemoveVolumeOptions>).await;
            });
        });
        let outcome = clear.join();
        if !std::thread::panicking() {
            outcome.unwrap();
        }
    }
}
