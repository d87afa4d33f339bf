//! Sandboxes as containers of a Docker daemon.
//!
//! ```text
//!  engine:  the daemon, there or not; probed at each first contact (see [`probe`]), looked for while it is away
//!  create:  image ── runtime's volume ── network beside container
//!  start:   stdin attached ── started ── configuration ── address
//!  stop:    SIGTERM ── SIGKILL;  destroy: container ── output beside network ── socket
//!  events:  one subscription for all who wait
//! ```
//!
//! Everything is named after its container, so that a name is enough to find and remove all of it. A label says whose
//! it is; a container of that name without our label is a stranger's and is left alone.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bay_ship_api::init::{InitConfig, Isolation};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::dial::Sockets;
use self::engine::{Address, Engine};
use self::events::Hub;
use self::identity::Identity;
use self::network::{Attached, Pool};
use self::probe::Wanted;
use self::ship_volume::ShipVolume;
use super::{
    ContainerRef, ContainerSpec, ContainerStatus, DockerOptions, Driver, DriverError, Features, Network,
    Progress, Stream,
};

mod create;
mod dial;
mod engine;
mod events;
mod identity;
mod image;
mod logs;
mod names;
mod network;
mod probe;
mod ship_volume;
mod start;
mod stop;
mod usage;
mod volumes;

#[cfg(test)]
mod tests;

/// How long a daemon that was there may take to say that it still is.
const PING_LIMIT: Duration = Duration::from_secs(3);

/// The Docker driver.
pub struct DockerDriver {
    inner: Arc<Inner>,
    keeper: AbortHandle,
}

impl Drop for DockerDriver {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Inner {
    engine: Arc<Engine>,
    hub: Arc<Hub>,
    instance: String,
    pool: Pool,
    ship: ShipVolume,
    sockets: Sockets,
    pull_limit: Duration,
    /// Containers that are being made, by name; each closes when it is.
    making: Mutex<BTreeMap<String, watch::Receiver<()>>>,
    sizes: usage::Sizes,
    pulls: image::Pulls,
}

/// What is stored of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Backend {
    id: String,
    reach: Reach,
    network: Option<Attached>,
}

/// How a container is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "via", rename_all = "snake_case")]
enum Reach {
    /// By its socket.
    Socket,
    /// By a port of 127.0.0.1, once it runs.
    Port { port: Option<u16> },
    /// By its own address, once it runs.
    Address { address: Option<IpAddr> },
}

impl Backend {
    /// None of a container that was never made to the end.
    fn of(container: &ContainerRef) -> Option<Self> {
        serde_json::from_value(container.backend.clone()).ok()
    }

    fn to_value(&self) -> Result<serde_json::Value, DriverError> {
        serde_json::to_value(self).map_err(|error| failed("note the container")(error.into()))
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> DriverError {
    move |source| DriverError::Io { what: what.to_owned(), source }
}

impl DockerDriver {
    /// Begins to look for the daemon, which need not be there. A configuration that cannot work is an error. Call it
    /// within a runtime; reads the runtime's binary once.
    pub fn new(options: &DockerOptions) -> Result<Self, DriverError> {
        let wrong = |key: &str| {
            let remedy = format!("mend [docker] {key} in bay.toml");
            move |message: String| DriverError::Unavailable { message, remedy }
        };
        let config = &options.config;
        let variable = |name: &str| std::env::var(name).ok();
        let address = Address::find(config.host.as_deref(), variable).map_err(wrong("host"))?;
        let identity = Identity::open(&options.data_dir).map_err(failed("open the data directory"))?;
        let wanted = Wanted { connect: config.connect };
        let engine = Engine::new(address, *config.request_timeout, wanted, identity);
        let engine = Arc::new(engine);
        let hub = Arc::new(Hub::new(&options.instance_id));
        let inner = Inner {
            engine: Arc::clone(&engine),
            hub: Arc::clone(&hub),
            instance: options.instance_id.clone(),
            pool: Pool::new(&config.subnet_pool, config.subnet_length).map_err(wrong("subnet_pool"))?,
            ship: ShipVolume::new(options.ship.clone()).map_err(failed("read the runtime"))?,
            sockets: Sockets::open(&options.data_dir).map_err(failed("open the run directory"))?,
            pull_limit: *config.pull_timeout,
            making: Mutex::default(),
            sizes: usage::Sizes::default(),
            pulls: image::Pulls::default(),
        };
        let keeper = tokio::spawn(engine.keep(hub)).abort_handle();
        Ok(Self { inner: Arc::new(inner), keeper })
    }
}

impl Inner {
    /// By what the daemon is asked for a container: its id once known, else its name.
    fn key(&self, container: &ContainerRef) -> Result<String, DriverError> {
        names::checked(&container.name)?;
        let id = Backend::of(container).map(|backend| backend.id);
        Ok(names::checked(id.as_deref().unwrap_or(&container.name))?.to_owned())
    }

    fn owns(&self, labels: Option<&HashMap<String, String>>) -> bool {
        labels.and_then(|labels| labels.get(names::INSTANCE)) == Some(&self.instance)
    }

    fn making(&self) -> MutexGuard<'_, BTreeMap<String, watch::Receiver<()>>> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Driver for DockerDriver {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn fetching(&self, image: &str) -> Option<Progress> {
        self.inner.pulls.of(image)
    }

    fn backend(&self) -> &'static str {
        "docker_volume"
    }

    /// Before the first contact: everything, so that what is asked for meanwhile fails by the daemon's absence.
    fn features(&self) -> Arc<Features> {
        match self.inner.engine.known() {
            Some(contact) => Arc::clone(&contact.facts.features),
            None => Arc::new(Features {
                isolation: Isolation::TwoUid,
                networks: vec![Network::None, Network::Egress, Network::Internal],
                limits: "docker, not reached yet".to_owned(),
                notes: Vec::new(),
            }),
        }
    }

    async fn health(&self) -> Result<(), DriverError> {
        let engine = &self.inner.engine;
        let contact = engine.contact().await?;
        let ping = engine.call_for(PING_LIMIT, contact.docker.ping()).await;
        ping.map(drop).map_err(|failure| failure.into_unwell("ask whether it is well"))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerRef, DriverError> {
        self.inner.create(spec).await
    }

    /// Overrides in `init` what only the driver knows: `network`, `isolation` and `limits.enforce`.
    async fn start(
        &self,
        container: &ContainerRef,
        spec: &ContainerSpec,
        init: &InitConfig,
    ) -> Result<ContainerRef, DriverError> {
        self.inner.start(container, spec, init).await
    }

    async fn stop(&self, container: &ContainerRef, grace: Duration) -> Result<(), DriverError> {
        self.inner.stop(container, grace).await
    }

    async fn destroy(&self, container: &ContainerRef) -> Result<(), DriverError> {
        self.inner.destroy(container).await
    }

    async fn inspect(&self, container: &ContainerRef) -> Result<ContainerStatus, DriverError> {
        self.inner.look(container).await.map(|(status, _)| status)
    }

    fn is_paused(&self, container: &ContainerRef) -> bool {
        self.inner.key(container).is_ok_and(|id| self.inner.hub.is_paused(&id))
    }

    async fn wait(&self, container: &ContainerRef) -> Result<ContainerStatus, DriverError> {
        self.inner.until_ended(container).await
    }

    async fn dial(&self, container: &ContainerRef, port: u16) -> Result<Stream, DriverError> {
        self.inner.dial(container, port).await
    }

    async fn logs(&self, container: &ContainerRef, max: usize) -> Result<Vec<u8>, DriverError> {
        self.inner.logs(container, max).await
    }

    async fn list(&self) -> Result<Vec<ContainerRef>, DriverError> {
        self.inner.list().await
    }

    async fn volume_create(&self, id: &str) -> Result<String, DriverError> {
        self.inner.volume_create(id).await
    }

    async fn volume_remove(&self, backend_ref: &str) -> Result<(), DriverError> {
        self.inner.volume_remove(backend_ref).await
    }

    async fn volume_usage(&self, backend_ref: &str) -> Result<Option<u64>, DriverError> {
        self.inner.volume_usage(backend_ref).await
    }
}
