//! What runs containers: create, start, stop, destroy, inspect, dial, logs, list, and volumes.
//!
//! A driver holds no policy. Arguments and results are plain and serialisable, so that a driver can live in
//! another process one day. Labels and names nominate; the store proves (see `session`).

pub mod docker;
pub mod local;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bay_ship_api::init::{InitConfig, Isolation};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a port of a container, before the handshake.
pub type Stream = Box<dyn ByteStream>;

/// What [`Stream`] boxes.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// What a container may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing but its own loopback.
    None,
    /// The internet, but no private, link-local, metadata, carrier-grade or host address.
    Egress,
    /// The other containers of its session.
    Internal,
}

/// Everything a driver needs to make one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// `bay-<session>-<generation>`: unique; made by one function from ids, never from client text.
    pub name: String,
    /// Name of the container within its profile, for instance `ship`.
    pub role: String,
    /// Image, for drivers that have images.
    pub image: Option<String>,
    /// CPU share in cores.
    pub cpus: f64,
    /// Memory bound in bytes.
    pub memory: u64,
    /// Most processes and threads.
    pub pids: u64,
    /// Network policy.
    pub network: Network,
    /// The volume mounted at `/workspace`, as [`Driver::volume_create`] named it.
    pub volume: String,
    /// `bay.*` labels: instance, session, generation, sandbox.
    pub labels: BTreeMap<String, String>,
    /// Local driver: `host`, or a directory that holds a root filesystem.
    pub rootfs: String,
    /// Local driver: `auto`, or the directory of a Python virtual environment.
    pub python: String,
    /// The port that the runtime serves, where it is reached by address.
    pub port: u16,
    /// Bytes on disk for what executions keep of their output.
    pub output: u64,
    /// Docker driver: what its containers have beyond the above.
    pub docker: DockerSpec,
}

/// When an image is fetched from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// At every start; what is there already serves when the registry does not answer.
    Always,
    /// When it is not there.
    #[default]
    IfNotPresent,
    /// Not at all: without it nothing starts.
    Never,
}

/// Of a container of the Docker driver.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DockerSpec {
    /// When the image is fetched.
    pub pull: PullPolicy,
    /// OCI runtime by the daemon's name for it (`runsc`); null: the daemon's default.
    pub runtime: Option<String>,
    /// Bytes of memory that `/tmp` may use.
    pub tmp: u64,
}

/// A started container: enough to find and prove it again after Bay was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRef {
    /// Its name.
    pub name: String,
    /// What the driver needs to find it again, opaque to everyone else; kept in the store.
    pub backend: serde_json::Value,
}

/// How a container is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ContainerStatus {
    /// It runs.
    Running,
    /// It ended, with what is known of why (`exit 1`, `SIGKILL`, `out of memory`).
    Exited {
        /// For a person.
        reason: String,
    },
    /// The driver knows nothing of it.
    Missing,
}

/// An end in words, for a person, from an exit code that is 128 and the signal's number where one ended it.
fn end_words(code: Option<i64>) -> String {
    match code {
        Some(137) => "SIGKILL".to_owned(),
        Some(143) => "SIGTERM".to_owned(),
        Some(139) => "SIGSEGV".to_owned(),
        Some(134) => "SIGABRT".to_owned(),
        Some(code) if code > 128 => format!("signal {}", code - 128),
        Some(code) => format!("exit {code}"),
        None => "ended".to_owned(),
    }
}

/// What a driver can do on this machine, found by probing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Separation of user code from the runtime.
    pub isolation: Isolation,
    /// Policies that can be given; any other is `network_unavailable`.
    pub networks: Vec<Network>,
    /// What bounds memory and pids: for instance `cgroup v2`, `cgroup v1 (memory, pids)`, `rlimits`.
    pub limits: String,
    /// Remarks for the log and `/ready`, said once.
    pub notes: Vec<String>,
}

/// Why a driver could not do something.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The engine or a tool it needs is not there; `remedy` says what to do.
    #[error("{message}; {remedy}")]
    Unavailable {
        /// What is missing.
        message: String,
        /// What the operator does about it.
        remedy: String,
    },
    /// The network policy cannot be given on this host.
    #[error("network policy {policy:?} is not available here: {reason}")]
    Network {
        /// The policy asked for.
        policy: Network,
        /// Why not.
        reason: String,
    },
    /// The container could not be started.
    #[error("could not start {name}: {reason}")]
    Start {
        /// Container.
        name: String,
        /// Why, with the end of its log.
        reason: String,
    },
    /// The image is not there, and may not or cannot be fetched; or nothing can run in it.
    #[error("image {image}: {reason}")]
    Image {
        /// As the profile names it.
        image: String,
        /// Why, and what to do.
        reason: String,
    },
    /// No such container or volume.
    #[error("{0} is not there")]
    Missing(String),
    /// It did not end in time.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// This driver has no such thing.
    #[error("the {driver} driver does not support {what}")]
    Unsupported {
        /// Driver.
        driver: &'static str,
        /// What was asked.
        what: &'static str,
    },
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}

impl DriverError {
    /// Whether it is the driver that could not be asked, which says nothing of what was asked about.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. })
    }
}

/// What a start waits for, for whoever looks meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// For a person.
    pub message: String,
    /// Since when, Unix milliseconds.
    pub since: i64,
}

/// Something that runs containers.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// `local` or `docker`; shown in `/ready`.
    fn name(&self) -> &'static str;

    /// Name of the kind of volume it makes: `directory`, `docker_volume`.
    fn backend(&self) -> &'static str;

    /// What it can do here, as last probed: an engine that was away may come back as another.
    fn features(&self) -> Arc<Features>;

    /// Whether it can serve now; the error says what is missing and what to do. Bounded to a few seconds.
    async fn health(&self) -> Result<(), DriverError>;

    /// How far an image is that is being fetched; none when it is not, or where there are no images.
    fn fetching(&self, _image: &str) -> Option<Progress> {
        None
    }

    /// Makes ready for [`Driver::start`]: sockets, cgroups, network. Undoes itself when it fails.
    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerRef, DriverError>;

    /// Starts it and hands `init` over on its stdin. The answer's `backend` replaces that of `create`.
    /// Returns once the process runs; whether the runtime answers is the caller's to probe.
    async fn start(
        &self,
        container: &ContainerRef,
        spec: &ContainerSpec,
        init: &InitConfig,
    ) -> Result<ContainerRef, DriverError>;

    /// Ends every process in it: politely, then after `grace` by force. Idempotent.
    async fn stop(&self, container: &ContainerRef, grace: Duration) -> Result<(), DriverError>;

    /// Removes whatever `create` and `start` made. Idempotent; stops first if need be.
    async fn destroy(&self, container: &ContainerRef) -> Result<(), DriverError>;

    /// How it is now.
    async fn inspect(&self, container: &ContainerRef) -> Result<ContainerStatus, DriverError>;

    /// Whether somebody froze it behind Bay's back, as far as is known without asking: it runs, and nothing in it does.
    fn is_paused(&self, _container: &ContainerRef) -> bool {
        false
    }

    /// Resolves when it has ended. Works for adopted containers too.
    async fn wait(&self, container: &ContainerRef) -> Result<ContainerStatus, DriverError>;

    /// A new connection to a port of it.
    async fn dial(&self, container: &ContainerRef, port: u16) -> Result<Stream, DriverError>;

    /// The last `max` bytes it logged.
    async fn logs(&self, container: &ContainerRef, max: usize) -> Result<Vec<u8>, DriverError>;

    /// Everything that carries this instance's labels or names, whether the store knows it or not.
    async fn list(&self) -> Result<Vec<ContainerRef>, DriverError>;

    /// Makes a volume and returns its backend reference; the same id again returns the same volume.
    async fn volume_create(&self, id: &str) -> Result<String, DriverError>;

    /// Removes a volume and all that is in it. Idempotent.
    async fn volume_remove(&self, backend_ref: &str) -> Result<(), DriverError>;

    /// Bytes used, by a walk bounded in time and entries; null when the bound was passed.
    async fn volume_usage(&self, backend_ref: &str) -> Result<Option<u64>, DriverError>;
}

/// What the local driver needs from Bay's configuration.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Bay's data directory; the driver owns `run/`, `lockers/` and `python/` beneath it.
    pub data_dir: PathBuf,
    /// The runtime binary on disk, executable.
    pub ship: PathBuf,
    /// Names this Bay, for cgroups and network interfaces.
    pub instance_id: String,
}

/// What the Docker driver needs from Bay's configuration.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// Where the daemon is, and how runtimes are reached.
    pub config: crate::config::DockerConfig,
    /// Bay's data directory; the driver owns `run/docker/` and `docker-daemon` in it.
    pub data_dir: PathBuf,
    /// The runtime binary on disk.
    pub ship: PathBuf,
    /// Names this Bay, for labels.
    pub instance_id: String,
}
