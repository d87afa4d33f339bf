//! The agent: Ship proper. Speaks HTTP with Bay, and has no privilege at all.
//!
//! One thread with a runtime, and a few for file operations. Touches files as the user, but is not the user: its
//! own id is another, so that user code can neither signal nor trace it.

pub(crate) mod body;
pub(crate) mod error;
pub(crate) mod fuzz;
mod handlers;
mod http;
mod meta;
mod range;
mod routes;
mod server;
mod shared;
pub(crate) mod sse;
pub(crate) mod stream;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use bay_ship_api::handshake::Credentials;
use bay_ship_api::init::{InitConfig, Isolation};
use bay_ship_api::{AGENT_ID, USER_ID};
use rustix::fs::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use self::handlers::archive::Archives;
use self::handlers::watch::Watching;
use crate::execution::Executions;
use crate::files::pool::Pool;
use crate::files::{Files, LEFT_BEHIND, Sweep};
use crate::init::config;
use crate::log;
use crate::python::Python;
use crate::shell::Shell;
use crate::spawner::child::drop_capabilities;
use crate::spawner::client::Spawner;
use crate::spawner::seccomp;
use crate::sys;
use crate::terminal::Terminals;
use crate::user::World;

/// What requests are answered with.
pub(crate) struct Ship {
    pub(crate) isolation: Isolation,
    /// When the agent started.
    pub(crate) started: Instant,
    /// `None`: the profile does not give it, or the container cannot.
    pub(crate) python: Option<Python>,
    pub(crate) shell: Option<Shell>,
    pub(crate) terminal: Option<Terminals>,
    /// Whether files are served; working directories are checked in any case.
    pub(crate) filesystem: bool,
    pub(crate) files: Files,
    pub(crate) pool: Pool,
    pub(crate) executions: Executions,
    archives: Archives,
    watching: Watching,
}

impl Ship {
    /// Whether the profile gives this capability and the container can have it.
    fn offers(&self, capability: &str) -> bool {
        match capability {
            "filesystem" => self.filesystem,
            "python" => self.python.is_some(),
            "shell" => self.shell.is_some(),
            "terminal" => self.terminal.is_some(),
            _ => false,
        }
    }
}

/// The agent's process. Does not return.
pub(crate) fn main(config: InitConfig, listener: OwnedFd, spawner: OwnedFd) -> ! {
    let _ = rustix::thread::set_name(c"ship-agent");
    match run(config, listener, spawner) {
        Ok(()) => sys::exit_now(0),
        Err(error) => {
            log(&format!("agent: over: {error}"));
            sys::exit_now(1)
        }
    }
}

fn run(mut config: InitConfig, listener: OwnedFd, spawner: OwnedFd) -> io::Result<()> {
    give_up_privilege(config.isolation)?;
    more_descriptors();
    sys::default_signals();
    sys::ignore_broken_pipes();
    let token = config::token(&config.token).ok_or_else(|| io::Error::other("no token"))?;
    config::wipe(&mut config.token);
    let credentials = Credentials::new(token, config.session.clone(), config.generation);
    rustix::io::ioctl_fionbio(&spawner, true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let spawner = Spawner::new(spawner)?;
        let mut events = tokio::spawn(spawner.clone().listen());
        let world = Arc::new(World::new(&config));
        let has = |name: &str| config.capabilities.iter().any(|capability| capability == name);
        // The kernel takes longest to start, so it is started before anything else is made.
        let python = (has("python") && world.python.is_some())
            .then(|| Python::start(spawner.clone(), Arc::clone(&world)));
        if has("python") && python.is_none() {
            log("agent: python is not offered: this container has no Python interpreter");
        }
        if world.shell.is_none() && (has("shell") || has("terminal")) {
            log("agent: shell and terminal are not offered: this container has no /bin/sh");
        }
        // Lets its task send the spawn before the next line runs.
        tokio::task::yield_now().await;
        let files = Files::open()?;
        let terminal = (has("terminal") && world.shell.is_some())
            .then(|| Terminals::new(spawner.clone(), Arc::clone(&world)));
        let ending = spawner.ending();
        let ship = Ship {
            isolation: config.isolation,
            started: Instant::now(),
            python,
            shell: (has("shell") && world.shell.is_some()).then(|| Shell::new(spawner, world)),
            terminal,
            filesystem: has("filesystem"),
            files,
            executions: Executions::new(Pool::start_as_agent()?, config.output_limit),
            pool: Pool::start()?,
            archives: Archives::new(),
            watching: Watching::new(),
        };
        tokio::spawn(sweep(ship.files.clone(), ship.pool.clone()));
        tokio::select! {
            over = server::serve(listener, Arc::new(ship), credentials, ending) => over,
            over = &mut events => over.map_err(io::Error::other).and_then(|over| over),
        }
    })
}

/// All bounds of this program together are more than the usual soft limit; user processes have a limit of their own.
fn more_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Where that fails the old one stays, and who comes too late is told that too many files are open.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Removes what an earlier Ship, killed at work, left in the workspace. That it fails is no reason not to start.
async fn sweep(files: Files, pool: Pool) {
    if let Ok(begun) = pool.run(move || files.sweep(LEFT_BEHIND)).await {
        let _ = pool.slices(begun, Sweep::slice).await;
    }
}

/// Becomes the agent's own id, with the user's for files, and without any capability.
fn give_up_privilege(isolation: Isolation) -> io::Result<()> {
    if isolation == Isolation::TwoUid {
        let (uid, gid) = (Uid::from_raw(AGENT_ID), Gid::from_raw(AGENT_ID));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        // Changing the file-system id takes SETUID and SETGID once more, after the ids have changed.
        rustix::thread::set_keep_capabilities(true)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        let both = CapabilitySet::SETUID | CapabilitySet::SETGID;
        let sets = CapabilitySets { effective: both, permitted: both, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets)?;
        sys::set_file_ids(USER_ID, USER_ID)?;
    }
    drop_capabilities()?;
    rustix::thread::set_no_new_privs(true)?;
    seccomp::install()?;
    // Changing ids may have changed this, too.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
