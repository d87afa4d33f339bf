//! One start, from Bay's side: the conversation drawn in [`super::launcher`], then the configuration on init's stdin.
//!
//! Order makes it safe to kill Bay at any instant. Until the plan was answered with *go*, the launcher ends by itself.
//! The state with the sandbox's identity is on disk before init is given its configuration, and an init that sees the
//! end of its stdin before a whole configuration ends: so either nothing runs, or what runs is written down.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bay_ship_api::init::InitConfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use super::bwrap::{self, Parts, Shape};
use super::identity::{self, ProcessId};
use super::launcher::{Go, Namespaces, Plan, Report, STAGE, Staged};
use super::network::{Attached, DENIED, Veths, addresses};
use super::state::{Entry, Started, State};
use super::{BASE_ID, ID_RANGE, Launcher, cgroup, channel, command, pasta};

/// How long each side waits for the other's next word. A start takes some 20 ms.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long init may take to read its configuration.
const CONFIG_LIMIT: Duration = Duration::from_secs(10);

/// Where a part of the container is on the host.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Chosen by the operator or by Bay; links are followed.
    pub(super) path: PathBuf,
    /// Components below it, none of which may be a link.
    pub(super) beneath: Vec<String>,
}

/// All parts of a container.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) etc: Source,
    pub(super) workspace: Source,
    pub(super) ship: Source,
    pub(super) spool: Option<Source>,
    pub(super) python: Option<Source>,
    pub(super) rootfs: Source,
}

/// What a start needs to know beside the state.
pub(super) struct Request<'a> {
    pub(super) launcher: &'a Launcher,
    pub(super) bwrap: &'a Path,
    pub(super) entry: &'a Entry,
    pub(super) directory: &'a Path,
    pub(super) privileged: bool,
    pub(super) net_admin: bool,
    pub(super) memory: u64,
    pub(super) parts: Sources,
    pub(super) resolvers: Vec<Ipv4Addr>,
}

/// Starts the sandbox and returns its state, which is on disk by then. Undoes itself when it fails. Blocks.
pub(super) fn start(request: &Request<'_>, state: &State, config: &InitConfig) -> io::Result<State> {
    let message = serde_json::to_vec(config).map_err(io::Error::other)?;
    let mut made = Made::default();
    let outcome = launch(request, state, &mut made).and_then(|(state, stdin)| {
        request.entry.write_state(&state)?;
        write_all(&stdin, &message)?;
        Ok(state)
    });
    if outcome.is_err() {
        made.undo();
    }
    made.reap();
    outcome
}

/// What exists so far.
#[derive(Default)]
struct Made {
    launcher: Option<Child>,
    sandbox: Option<(OwnedFd, OwnedFd)>,
    helper: Option<ProcessId>,
}

impl Made {
    fn undo(&mut self) {
        if let Some(launcher) = &mut self.launcher {
            let _ = launcher.kill();
        }
        if let Some((init, monitor)) = &self.sandbox {
            let _ = identity::signal(init, Signal::KILL);
            let _ = identity::wait_ended(init, PATIENCE);
            let _ = identity::wait_ended(monitor, PATIENCE);
        }
        if let Some(helper) = self.helper {
            let _ = pasta::end(helper);
        }
    }

    fn reap(&mut self) {
        if let Some(launcher) = &mut self.launcher {
            // It has said its last word, or was killed.
            let _ = launcher.wait();
        }
    }
}

fn launch(request: &Request<'_>, state: &State, made: &mut Made) -> io::Result<(State, OwnedFd)> {
    let listener = listen(request.entry)?;
    let (ours, theirs) = channel::pair(PATIENCE)?;
    let (config_reader, config_writer) = io::pipe()?;
    let log = request.entry.log_writer()?;
    let status = request.entry.status_writer()?;
    let plan = plan(request, state)?;

    let mut command = command::clean(&request.launcher.program);
    command.args(&request.launcher.args).stdin(Stdio::from(theirs));
    command.stdout(log.try_clone()?).stderr(log);
    let child = made.launcher.insert(command.spawn()?);
    // `Command` still holds their end, and the launcher must see ours close when Bay dies.
    drop(command);
    let pid = child.id();
    channel::send(&ours, &plan, &[listener.as_fd(), config_reader.as_fd(), status.as_fd()])?;
    drop((listener, config_reader, status));
    // The kernel takes its time for this, so it goes on beside the launcher's own work.
    cgroup::join(&state.groups, pid)?;
    let (report, mut fds) = channel::receive::<Report>(&ours)?;
    match report {
        Report::Namespaces => connect(request, state, &plan.namespaces, pid, fds.pop(), made)?,
        Report::Failed { reason } => return Err(io::Error::other(reason)),
        Report::Running { .. } => return Err(io::Error::other("the launcher started too soon")),
    }
    channel::send(&ours, &Go, &[])?;
    match channel::receive::<Report>(&ours)? {
        (Report::Running { init, monitor }, fds) => {
            let [init_fd, monitor_fd] =
                <[OwnedFd; 2]>::try_from(fds).map_err(|_| io::Error::other("the launcher sent no pidfds"))?;
            let identities = (ProcessId::pin(init, &init_fd)?, ProcessId::pin(monitor, &monitor_fd)?);
            made.sandbox = Some((init_fd, monitor_fd));
            let (Some(init), Some(monitor)) = identities else {
                return Err(io::Error::other("the sandbox ended at once"));
            };
            if !init.is_child_of(monitor.pid) {
                return Err(io::Error::other("the sandbox ended at once, and its pid has a new owner"));
            }
            let started = Started { init, monitor, helper: made.helper };
            Ok((State { started: Some(started), ..state.clone() }, config_writer.into()))
        }
        (Report::Failed { reason }, _) => Err(io::Error::other(reason)),
        (Report::Namespaces, _) => Err(io::Error::other("the launcher repeats itself")),
    }
}

/// Binds the socket that only Bay can find; init gets the listening end.
fn listen(entry: &Entry) -> io::Result<UnixListener> {
    let path = entry.socket_path();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(&path)
}

fn plan(request: &Request<'_>, state: &State) -> io::Result<Plan> {
    let namespaces = match (&state.network, request.privileged) {
        (attached, true) => Namespaces::Mapped { addresses: attached.as_ref().and_then(addresses) },
        (Some(_), false) => Namespaces::Helper {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            denied: DENIED.to_vec(),
            resolvers: request.resolvers.clone(),
        },
        (None, false) => Namespaces::Bubblewrap,
    };
    let shape = Shape {
        two_uid: request.privileged,
        own_network: state.network.is_some(),
        net_admin: request.net_admin,
        memory: request.memory,
    };
    let (parts, stage) = place(request);
    let args = bwrap::arguments(shape, &parts, &request.parts.rootfs.path)?;
    Ok(Plan { bwrap: request.bwrap.to_owned(), args, stage, namespaces })
}

/// Where bubblewrap finds each part: as root at the stage, else where it is.
fn place(request: &Request<'_>) -> (Parts, Vec<Staged>) {
    let sources = &request.parts;
    let mut stage = Vec::new();
    let mut put = |name: &str, source: &Source| {
        if request.privileged {
            stage.push(Staged {
                name: name.to_owned(),
                path: source.path.clone(),
                beneath: source.beneath.clone(),
            });
            Path::new(STAGE).join(name)
        } else {
            source.beneath.iter().fold(source.path.clone(), |path, name| path.join(name))
        }
    };
    let parts = Parts {
        etc: put("etc", &sources.etc),
        workspace: put("workspace", &sources.workspace),
        ship: put("ship", &sources.ship),
        spool: sources.spool.as_ref().map(|source| put("spool", source)),
        python: sources.python.as_ref().map(|source| put("python", source)),
        // The host's own root is everybody's to see; another one may be anywhere.
        rootfs: if sources.rootfs.path == Path::new("/") {
            "/".into()
        } else {
            put("rootfs", &sources.rootfs)
        },
    };
    (parts, stage)
}

/// Bay's part of the namespaces: identities and network.
fn connect(
    request: &Request<'_>,
    state: &State,
    namespaces: &Namespaces,
    pid: u32,
    network: Option<OwnedFd>,
    made: &mut Made,
) -> io::Result<()> {
    match namespaces {
        Namespaces::Bubblewrap => Ok(()),
        Namespaces::Mapped { .. } => {
            // The launcher is a child that was not waited for: its pid is its own.
            let map = format!("0 {BASE_ID} {ID_RANGE}");
            std::fs::write(format!("/proc/{pid}/uid_map"), &map)?;
            std::fs::write(format!("/proc/{pid}/gid_map"), &map)?;
            match (&state.network, network) {
                (Some(attached @ Attached::Veth { .. }), Some(namespace)) => {
                    Veths::connect(attached, namespace.as_fd())
                }
                (None, None) => Ok(()),
                _ => Err(io::Error::other("the launcher made another network than was asked for")),
            }
        }
        Namespaces::Helper { .. } => {
            made.helper = Some(pasta::connect(pid, request.directory)?);
            Ok(())
        }
    }
}

/// Writes all of it, waiting for a reader at most [`CONFIG_LIMIT`].
fn write_all(pipe: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + CONFIG_LIMIT;
    rustix::io::ioctl_fionbio(pipe, true)?;
    let mut file = std::fs::File::from(pipe.try_clone()?);
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
                match poll(&mut [PollFd::new(pipe, PollFlags::OUT)], Some(&timeout)) {
                    Ok(0) => {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "init does not read its configuration",
                        ));
                    }
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
