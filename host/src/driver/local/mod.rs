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
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bay_ship_api::init::{InitConfig, NetworkSetup};
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;

use self::cgroup::{Bounds, Cgroups};
use self::etc::Template;
use self::netlink::Netlink;
use self::network::{Attached, SUBNET_BITS, Veths};
use self::start::{Request, Source, Sources};
use self::state::{Entry, RunDir, Started, State, valid_name};
use self::volumes::Volumes;
use super::{
    ContainerRef, ContainerSpec, ContainerStatus, Driver, DriverError, Features, LocalOptions, Network,
    Stream,
};

mod bwrap;
mod cgroup;
mod channel;
mod command;
mod etc;
mod firewall;
mod identity;
mod launcher;
mod netlink;
mod network;
mod pasta;
mod probe;
mod python;
mod start;
mod state;
mod volumes;

#[cfg(test)]
mod tests;

pub use self::launcher::launch_main;
pub use self::network::denied_prefixes;
pub use self::python::ensure_python;

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
    features: Features,
    boot_id: String,
    /// Names being started: a second start of the same container must not replace the first one's socket.
    starting: Mutex<std::collections::BTreeSet<String>>,
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

impl Inner {
    fn entry(&self, name: &str) -> Result<Option<Entry>, DriverError> {
        if !valid_name(name) {
            return Err(DriverError::Missing(name.to_owned()));
        }
        self.run.entry(name).map_err(failed(format!("open the directory of {name}")))
    }

    fn load(&self, name: &str) -> Result<Option<(Entry, State)>, DriverError> {
        let Some(entry) = self.entry(name)? else { return Ok(None) };
        match entry.state() {
            Ok(state) => Ok(Some((entry, state))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(format!("read the state of {name}"))(error)),
        }
    }

    /// The processes, if they were started in this boot: of another, their pids are somebody else's.
    fn of_this_boot(&self, state: &State) -> Option<Started> {
        state.started.filter(|_| state.boot_id == self.boot_id)
    }

    fn reference(name: &str, state: &State) -> Result<ContainerRef, DriverError> {
        let backend = serde_json::to_value(state)
            .map_err(|error| failed("write the state")(io::Error::other(error)))?;
        Ok(ContainerRef { name: name.to_owned(), backend })
    }

    fn create(&self, spec: &ContainerSpec) -> Result<ContainerRef, DriverError> {
        let name = &spec.name;
        if !valid_name(name) || !valid_name(&spec.volume) {
            return Err(DriverError::Start {
                name: name.clone(),
                reason: "names are lower-case letters, digits, - and _".to_owned(),
            });
        }
        let network = match (spec.network, &self.egress) {
            (Network::None, _) => None,
            (Network::Egress, Egress::Veths(veths)) => {
                let attached = veths.allocate(&network::resolvers());
                Some(attached.map_err(|error| no_network(Network::Egress, error.to_string()))?)
            }
            (Network::Egress, Egress::Pasta) => Some(Attached::Pasta),
            (Network::Egress, Egress::None(reason)) => {
                return Err(no_network(Network::Egress, reason.clone()));
            }
            (Network::Internal, _) => {
                return Err(no_network(
                    Network::Internal,
                    "the local driver runs one container a session".to_owned(),
                ));
            }
        };
        let state = State {
            boot_id: self.boot_id.clone(),
            role: spec.role.clone(),
            groups: self.cgroups.plan(name),
            network,
            started: None,
        };
        let bounds = Bounds { memory: spec.memory, pids: spec.pids, cpus: spec.cpus };
        let entry = match self.run.create(name) {
            Ok(entry) => entry,
            Err(error) => {
                // Somebody else's directory, if it was there already: only what was taken here is given back.
                self.release(&state);
                return Err(failed(format!("make the directory of {name}"))(error));
            }
        };
        let made = entry.write_state(&state).and_then(|()| cgroup::create(&state.groups, bounds));
        if let Err(error) = made {
            self.release(&state);
            let _ = self.run.remove(name);
            return Err(failed(format!("create {name}"))(error));
        }
        Self::reference(name, &state)
    }

    fn release(&self, state: &State) {
        if let (Some(attached), Egress::Veths(veths)) = (&state.network, &self.egress)
            && let Err(error) = veths.release(attached)
        {
            tracing::warn!(%error, "a network was not given back");
        }
    }

    fn start(
        &self,
        name: &str,
        spec: &ContainerSpec,
        init: &InitConfig,
    ) -> Result<ContainerRef, DriverError> {
        let (entry, state) = self.load(name)?.ok_or_else(|| DriverError::Missing(name.to_owned()))?;
        let refuse = |reason: String| DriverError::Start { name: name.to_owned(), reason };
        let _claim =
            Claim::take(&self.starting, name).ok_or_else(|| refuse("it is being started".to_owned()))?;
        if let Some(started) = self.of_this_boot(&state)
            && started.init.open().map_err(failed("look for the sandbox"))?.is_some()
        {
            return Err(refuse("it runs already".to_owned()));
        }
        if !self.volumes.exists(&spec.volume).map_err(failed("look for the volume"))? {
            return Err(DriverError::Missing(spec.volume.clone()));
        }
        let resolvers = if state.network.is_some() { network::resolvers() } else { Vec::new() };
        let python = self.python(&spec.python).map_err(refuse)?;
        let parts = self.sources(spec, &python, &resolvers).map_err(|error| refuse(error.to_string()))?;
        let config = self.configuration(init, &state, &python, &resolvers)?;
        let request = Request {
            launcher: &self.launcher,
            bwrap: &self.bwrap,
            entry: &entry,
            directory: &self.run_path.join(name),
            privileged: self.privileged,
            net_admin: matches!(config.network, NetworkSetup::PolicyRoutes { .. }),
            memory: spec.memory,
            parts,
            resolvers,
        };
        let fresh = State { boot_id: self.boot_id.clone(), started: None, ..state };
        match start::start(&request, &fresh, &config) {
            Ok(state) => Self::reference(name, &state),
            Err(error) => {
                // What it had started is dead; the next start or a destroy finds it as after create.
                let _ = entry.write_state(&fresh);
                let log = entry.log_tail(LOG_TAIL).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                Err(refuse(format!("{error}: {}", log.trim()).trim_end_matches(": ").to_owned()))
            }
        }
    }

    fn python(&self, wanted: &str) -> Result<python::Choice, String> {
        if wanted == "auto" || wanted.is_empty() {
            return Ok(python::automatic(&self.data_dir, self.system_has_kernel));
        }
        let venv =
            std::fs::canonicalize(wanted).map_err(|error| format!("python environment {wanted}: {error}"))?;
        python::check(&venv)?;
        Ok(python::Choice::Venv(venv))
    }

    fn sources(
        &self,
        spec: &ContainerSpec,
        python: &python::Choice,
        resolvers: &[Ipv4Addr],
    ) -> io::Result<Sources> {
        let source = |path: &Path, beneath: &[&str]| Source {
            path: path.to_owned(),
            beneath: beneath.iter().map(|name| (*name).to_owned()).collect(),
        };
        let (rootfs, etc) = if spec.rootfs == "host" || spec.rootfs.is_empty() {
            (PathBuf::from("/"), self.etc.materialise(&self.run_path, resolvers)?)
        } else {
            let rootfs = std::fs::canonicalize(&spec.rootfs)?;
            let etc = Template::read(&rootfs.join("etc")).materialise(&self.run_path, resolvers)?;
            (rootfs, etc)
        };
        Ok(Sources {
            etc: source(&self.run_path, &[&etc]),
            workspace: source(&self.data_dir, &["lockers", &spec.volume]),
            ship: source(&self.ship, &[]),
            python: match python {
                python::Choice::Venv(venv) => Some(source(venv, &[])),
                python::Choice::System | python::Choice::None => None,
            },
            rootfs: source(&rootfs, &[]),
        })
    }

    /// The caller's configuration with what only the driver knows.
    fn configuration(
        &self,
        init: &InitConfig,
        state: &State,
        python: &python::Choice,
        resolvers: &[Ipv4Addr],
    ) -> Result<InitConfig, DriverError> {
        let network = match &state.network {
            None => NetworkSetup::None,
            Some(Attached::Pasta) => NetworkSetup::Enforced,
            Some(attached @ Attached::Veth { .. }) => {
                let own = Netlink::open().and_then(|mut netlink| netlink.addresses());
                let own = own.map_err(|error| no_network(Network::Egress, error.to_string()))?;
                let subnet = network::addresses(attached).map(|addresses| (addresses.gateway, SUBNET_BITS));
                NetworkSetup::PolicyRoutes {
                    deny: denied_prefixes(&own, subnet),
                    allow: resolvers.iter().map(ToString::to_string).collect(),
                }
            }
        };
        let mut config = init.clone();
        config.network = network;
        config.isolation = self.features.isolation;
        config.python = python.interpreter();
        config.limits.enforce = !self.cgroups.enforces();
        Ok(config)
    }

    /// After init has ended: whatever else there is.
    fn end_leftovers(&self, name: &str) -> Result<(), DriverError> {
        let Some((_, state)) = self.load(name)? else { return Ok(()) };
        if let Some(started) = self.of_this_boot(&state) {
            if let Some(helper) = started.helper {
                pasta::end(helper).map_err(failed("end the network helper"))?;
            }
            if let Some(monitor) = started.monitor.open().map_err(failed("look for bubblewrap"))?
                && !identity::wait_ended(&monitor, CODE_LIMIT).map_err(failed("wait for bubblewrap"))?
            {
                identity::signal(&monitor, Signal::KILL).map_err(failed("end bubblewrap"))?;
            }
        }
        if cgroup::kill(&state.groups, GROUP_LIMIT).map_err(failed("end what is left in the cgroup"))? {
            Ok(())
        } else {
            Err(DriverError::Timeout {
                what: format!("the end of every process of {name}"),
                limit: GROUP_LIMIT,
            })
        }
    }

    fn remove(&self, name: &str) -> Result<(), DriverError> {
        if let Some((_, state)) = self.load(name)? {
            if let (Some(attached), Egress::Veths(veths)) = (&state.network, &self.egress) {
                veths.release(attached).map_err(failed("remove the network"))?;
            }
            cgroup::remove(&state.groups, GROUP_LIMIT).map_err(failed("remove the cgroup"))?;
        }
        self.run.remove(name).map_err(failed(format!("remove the directory of {name}")))
    }

    fn status(&self, name: &str) -> Result<ContainerStatus, DriverError> {
        let Some((entry, state)) = self.load(name)? else { return Ok(ContainerStatus::Missing) };
        let exited = |reason: &str| Ok(ContainerStatus::Exited { reason: reason.to_owned() });
        if state.started.is_none() {
            return exited("not started");
        }
        let Some(started) = self.of_this_boot(&state) else { return exited("the machine was restarted") };
        if started.init.open().map_err(failed("look for the sandbox"))?.is_some() {
            return Ok(ContainerStatus::Running);
        }
        let code = entry.exit_code().map_err(failed("read the exit code"))?;
        exited(&reason(code, cgroup::oom_kills(&state.groups)))
    }
}

fn no_network(policy: Network, reason: String) -> DriverError {
    DriverError::Network { policy, reason }
}

/// For a person. Bubblewrap says 128 + signal for a signal.
fn reason(code: Option<i32>, oom_kills: u64) -> String {
    match code {
        Some(0) => "exit 0".to_owned(),
        _ if oom_kills > 0 => "out of memory".to_owned(),
        Some(137) => "SIGKILL".to_owned(),
        Some(143) => "SIGTERM".to_owned(),
        Some(139) => "SIGSEGV".to_owned(),
        Some(134) => "SIGABRT".to_owned(),
        Some(code) if code > 128 => format!("signal {}", code - 128),
        Some(code) => format!("exit {code}"),
        None => "ended".to_owned(),
    }
}

/// A name on the list of those being started, while it lives.
struct Claim<'a> {
    list: &'a Mutex<std::collections::BTreeSet<String>>,
    name: String,
}

impl<'a> Claim<'a> {
    fn take(list: &'a Mutex<std::collections::BTreeSet<String>>, name: &str) -> Option<Self> {
        let fresh = list.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        fresh.then(|| Self { list, name: name.to_owned() })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

#[async_trait]
impl Driver for LocalDriver {
    fn name(&self) -> &'static str {
        "local"
    }

    fn backend(&self) -> &'static str {
        "directory"
    }

    fn features(&self) -> &Features {
        &self.inner.features
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
