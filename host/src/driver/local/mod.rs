//! Sandboxes on this machine, without an engine: bubblewrap behind a launcher of Bay's own.
//!
//! For development and for machines of one user: the kernel is shared, the host's `/usr` is what a sandbox sees.
//!
//! ```text
//!  create: directory in run/ ── cgroups ── part of an address pool
//!  start:  socket bound, launcher (see [`launcher`]) ── bubblewrap ── init; identity on disk ── configuration
//!  stop:   SIGTERM to init ── SIGKILL ── leftovers of the cgroups
//!  destroy: network, cgroups, directory
//! ```
//!
//! A sandbox is nobody's child: no death signal, its own session, its output in a file. Whoever has the data
//! directory finds it again by pid, start time and boot.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bay_ship_api::init::InitConfig;
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;

use self::cgroup::Cgroups;
use self::etc::Template;
use self::network::Veths;
use self::state::{RunDir, valid_name};
use self::volumes::Volumes;
use super::{
    ContainerRef, ContainerSpec, ContainerStatus, Driver, DriverError, Features, LocalOptions, Stream,
};

mod bwrap;
mod cgroup;
mod channel;
mod command;
mod etc;
mod firewall;
mod identity;
mod inner;
mod launcher;
mod netlink;
mod network;
mod pasta;
mod probe;
mod python;
mod start;
pub(super) mod state;
mod volumes;

#[cfg(test)]
mod tests;

pub use self::launcher::launch_main;
pub use self::network::denied_prefixes;
pub use self::python::ensure_python;

/// Every address of this machine, v4 and v6. Blocks for a moment.
pub fn own_addresses() -> io::Result<Vec<std::net::IpAddr>> {
    netlink::Netlink::open()?.addresses()
}

/// Host uid and gid that are 0 inside, when Bay is root.
const BASE_ID: u32 = 100_000;
/// How many uids and gids exist inside.
const ID_RANGE: u32 = 65_536;

/// How long a killed process may take to be gone: the kernel first ends everything in its pid namespace.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// How long after init bubblewrap may take to write down its exit code.
const CODE_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection to a listening socket may take: only a full queue delays it.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// How long cgroups may take to become empty.
const GROUP_LIMIT: Duration = Duration::from_secs(5);
/// How much of the log goes into an error.
const LOG_TAIL: usize = 2000;

/// The command that becomes the launcher.
#[derive(Debug, Clone)]
struct Launcher {
    program: PathBuf,
    args: Vec<String>,
}

/// How `egress` is given here.
enum Egress {
    /// Root: pairs of virtual interfaces.
    Veths(Veths),
    /// Normal user: pasta.
    Pasta,
    /// Not at all, and why.
    None(String),
}

/// The local driver; cheap to clone.
#[derive(Clone)]
pub struct LocalDriver {
    inner: Arc<Inner>,
}

struct Inner {
    data_dir: PathBuf,
    run: RunDir,
    run_path: PathBuf,
    volumes: Volumes,
    ship: PathBuf,
    bwrap: PathBuf,
    launcher: Launcher,
    privileged: bool,
    cgroups: Cgroups,
    egress: Egress,
    etc: Template,
    system_has_kernel: bool,
    features: Arc<Features>,
    boot_id: String,
    /// Names being started: a second start of the same container must not replace the first one's socket.
    starting: Mutex<std::collections::BTreeSet<String>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cgroups.tidy();
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> DriverError {
    move |source| DriverError::Io { what: what.into(), source }
}

impl LocalDriver {
    /// Finds out what this machine can do, by running a first sandbox that does nothing. Blocks for some 50 ms; call it
    /// before serving.
    ///
    /// The error says what is missing and what to do: bubblewrap, user namespaces, the runtime.
    pub fn probe(options: &LocalOptions) -> Result<Self, DriverError> {
        let launcher = Launcher { program: "/proc/self/exe".into(), args: vec!["launch".to_owned()] };
        Self::with_launcher(options, launcher)
    }

    fn with_launcher(options: &LocalOptions, launcher: Launcher) -> Result<Self, DriverError> {
        Ok(Self { inner: Arc::new(probe::probe(options, launcher)?) })
    }

    /// True when cgroups bound memory and processes of a sandbox; otherwise [`Driver::start`] tells init to set
    /// rlimits, whatever the caller wrote in its configuration.
    pub fn enforces_limits(&self) -> bool {
        self.inner.cgroups.enforces()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(failed("run a task")(io::Error::other(error))),
        }
    }

    /// Descriptors of the processes of a container that still live.
    async fn processes(&self, name: &str) -> Result<Option<Processes>, DriverError> {
        let name = name.to_owned();
        self.blocking(move |inner| {
            let Some((_, state)) = inner.load(&name)? else { return Ok(None) };
            let Some(started) = inner.of_this_boot(&state) else { return Ok(None) };
            let open = |process: identity::ProcessId| process.open().map_err(failed("look for the sandbox"));
            Ok(Some(Processes { init: open(started.init)?, monitor: open(started.monitor)? }))
        })
        .await
    }
}

/// What of a container still lives.
struct Processes {
    init: Option<OwnedFd>,
    monitor: Option<OwnedFd>,
}

/// Waits on a pidfd without a thread.
async fn until_ended(pidfd: OwnedFd) -> Result<(), DriverError> {
    #[expect(
        unsafe_code,
        reason = "tokio takes any type that says it is a descriptor, and asks for a promise that it is"
    )]
    // SAFETY: an `OwnedFd` is open, is the same descriptor at every call, and stays so until the `AsyncFd` that owns
    // it from here on is dropped; nothing takes it out again.
    let pidfd = unsafe { AsyncFd::register(pidfd) };
    let pidfd = pidfd.map_err(|error| failed("watch the sandbox")(error.into()))?;
    pidfd.readable().await.map(drop).map_err(failed("watch the sandbox"))
}

#[async_trait]
impl Driver for LocalDriver {
    fn name(&self) -> &'static str {
        "local"
    }

    fn backend(&self) -> &'static str {
        "directory"
    }

    fn features(&self) -> Arc<Features> {
        Arc::clone(&self.inner.features)
    }

    /// Nothing runs that could be away.
    async fn health(&self) -> Result<(), DriverError> {
        Ok(())
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerRef, DriverError> {
        let spec = spec.clone();
        self.blocking(move |inner| inner.create(&spec)).await
    }

    /// Overrides in `init` what only the driver knows: `network`, `isolation`, `python` and `limits.enforce`.
    async fn start(
        &self,
        container: &ContainerRef,
        spec: &ContainerSpec,
        init: &InitConfig,
    ) -> Result<ContainerRef, DriverError> {
        let (name, spec, init) = (container.name.clone(), spec.clone(), init.clone());
        self.blocking(move |inner| inner.start(&name, &spec, &init)).await
    }

    async fn stop(&self, container: &ContainerRef, grace: Duration) -> Result<(), DriverError> {
        let name = container.name.clone();
        if let Some(Processes { init: Some(init), .. }) = self.processes(&name).await? {
            let again = init.try_clone().map_err(failed("watch the sandbox"))?;
            let mut gone = false;
            if !grace.is_zero() {
                identity::signal(&init, Signal::TERM).map_err(failed("stop the sandbox"))?;
                gone = tokio::time::timeout(grace, until_ended(again)).await.is_ok();
            }
            if !gone {
                identity::signal(&init, Signal::KILL).map_err(failed("kill the sandbox"))?;
                match tokio::time::timeout(KILL_LIMIT, until_ended(init)).await {
                    Ok(outcome) => outcome?,
                    Err(_) => {
                        return Err(DriverError::Timeout {
                            what: format!("the end of {name}"),
                            limit: KILL_LIMIT,
                        });
                    }
                }
            }
        }
        self.blocking(move |inner| inner.end_leftovers(&name)).await
    }

    async fn destroy(&self, container: &ContainerRef) -> Result<(), DriverError> {
        self.stop(container, Duration::ZERO).await?;
        let name = container.name.clone();
        self.blocking(move |inner| inner.remove(&name)).await
    }

    async fn inspect(&self, container: &ContainerRef) -> Result<ContainerStatus, DriverError> {
        let name = container.name.clone();
        self.blocking(move |inner| inner.status(&name)).await
    }

    async fn wait(&self, container: &ContainerRef) -> Result<ContainerStatus, DriverError> {
        if let Some(processes) = self.processes(&container.name).await? {
            if let Some(init) = processes.init {
                until_ended(init).await?;
            }
            if let Some(monitor) = processes.monitor {
                // Its own end follows init's; without it only the exit code is unknown.
                let _ = tokio::time::timeout(CODE_LIMIT, until_ended(monitor)).await;
            }
        }
        self.inspect(container).await
    }

    async fn dial(&self, container: &ContainerRef, _port: u16) -> Result<Stream, DriverError> {
        // One runtime a container, on one socket: the port is for drivers that have addresses.
        let missing = || DriverError::Missing(container.name.clone());
        let entry = self.inner.entry(&container.name)?.ok_or_else(missing)?;
        let path = entry.socket_path();
        match tokio::time::timeout(DIAL_LIMIT, tokio::net::UnixStream::connect(&path)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(failed(format!("dial {}", container.name))(error)),
            Err(_) => {
                Err(DriverError::Timeout { what: format!("dialling {}", container.name), limit: DIAL_LIMIT })
            }
        }
    }

    async fn logs(&self, container: &ContainerRef, max: usize) -> Result<Vec<u8>, DriverError> {
        let name = container.name.clone();
        self.blocking(move |inner| {
            let entry = inner.entry(&name)?.ok_or_else(|| DriverError::Missing(name.clone()))?;
            entry.log_tail(max).map_err(failed("read the log"))
        })
        .await
    }

    async fn list(&self) -> Result<Vec<ContainerRef>, DriverError> {
        self.blocking(|inner| {
            let mut found = Vec::new();
            for name in inner.run.names().map_err(failed("list the run directory"))? {
                // One that is being removed right now is no longer there.
                if let Some((_, state)) = inner.load(&name)? {
                    found.push(Inner::reference(&name, &state)?);
                }
            }
            Ok(found)
        })
        .await
    }

    async fn volume_create(&self, id: &str) -> Result<String, DriverError> {
        let id = id.to_owned();
        self.blocking(move |inner| {
            if !valid_name(&id) {
                return Err(DriverError::Missing(id));
            }
            inner.volumes.create(&id).map_err(failed("make the volume"))?;
            Ok(id)
        })
        .await
    }

    async fn volume_remove(&self, backend_ref: &str) -> Result<(), DriverError> {
        let id = backend_ref.to_owned();
        self.blocking(move |inner| {
            if !valid_name(&id) {
                return Err(DriverError::Missing(id));
            }
            inner.volumes.remove(&id).map_err(failed("remove the volume"))
        })
        .await
    }

    async fn volume_usage(&self, backend_ref: &str) -> Result<Option<u64>, DriverError> {
        let id = backend_ref.to_owned();
        self.blocking(move |inner| {
            if !valid_name(&id) || !inner.volumes.exists(&id).map_err(failed("look for the volume"))? {
                return Err(DriverError::Missing(id));
            }
            inner.volumes.usage(&id).map_err(failed("measure the volume"))
        })
        .await
    }
}
