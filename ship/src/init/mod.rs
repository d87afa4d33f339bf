//! Process 1 of a container: reads its configuration, sets the network rules, parts into agent and spawner, and
//! gives up whatever privilege is left over. Single-threaded, no runtime, nothing parsed but Bay's own message.

pub(crate) mod config;
mod folders;
pub(crate) mod listen;
mod nest;
mod netlink;
mod network;

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bay_ship_api::init::{InitConfig, Isolation};
use bay_ship_api::{AGENT_ID, USER_ID};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, kill_process, wait};
use rustix::thread::{CapabilitySet, CapabilitySets};

pub(crate) use config::is_name;
use listen::Listen;

use crate::agent;
use crate::log;
use crate::spawner::child::{Mould, drop_capabilities};
use crate::spawner::seccomp;
use crate::spawner::server::{DRAIN, Heeds, Over, Server, told_to_end};
use crate::sys::{self, Forked};

/// What Ship keeps while it runs: the kernel's sockets and its settings. Outside `/workspace`.
pub(crate) const RUN_DIR: &str = "/run/ship";
/// The part of it that belongs to the user.
pub(crate) const RUN_USER_DIR: &str = "/run/ship/user";
/// The part of it that belongs to the agent; out of user code's reach.
pub(crate) const RUN_AGENT_DIR: &str = "/run/ship/agent";

/// Between two times that the nest is told to end.
const TELL_AGAIN: Duration = Duration::from_millis(100);
/// How long the start-up message may take.
const CONFIG_WAIT: Duration = Duration::from_secs(15);

/// What the nest may take beyond its own bound before init ends without it.
const NEST_GRACE: Duration = Duration::from_millis(500);

/// A start that cannot go on, in words for whoever reads the log.
pub(crate) type Stop = String;

/// `ship init`.
pub(crate) fn main(listen: &Listen) -> ExitCode {
    let result = run(listen);
    match result {
        Ok(why) => {
            log(&format!("init: over: {why}"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            log(&format!("init: cannot start: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(listen: &Listen) -> Result<String, Stop> {
    if rustix::process::getpid().as_raw_nonzero().get() != 1 {
        return Err(
            "`ship init` must be process 1 of its own PID namespace: Bay starts it, people do not".into()
        );
    }
    let listener = listen.open()?;
    let _ = rustix::thread::set_name(c"ship-init");
    // Nobody inside reads this memory; it holds the token for a moment.
    stop("dumpable", rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let signals = stop("signals", sys::watch_signals())?;
    let config = config::read(CONFIG_WAIT)?;
    check_identity(&config)?;
    network::set_up(&config.network)?;
    run_dir(config.isolation)?;
    if config.isolation == Isolation::TwoUid {
        folders::give()?;
    }
    keep_capabilities(match config.isolation {
        Isolation::TwoUid => CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL,
        Isolation::NestedPid => CapabilitySet::empty(),
    })?;
    stop("no-new-privileges", rustix::thread::set_no_new_privs(true))?;

    let (ours, theirs) = stop(
        "spawner socket",
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None),
    )?;
    let (isolation, limits) = (config.isolation, config.limits);
    let agent = start_agent(config, listener, theirs, &ours, &signals)?;
    let mould = Mould { isolation, limits };
    match isolation {
        Isolation::TwoUid => {
            stop("seccomp", seccomp::install())?;
            let mut server = Server::new(ours, signals, mould, vec![agent], Heeds::Anyone);
            stop("spawner", server.run()).map(|over| words(&over, agent))
        }
        Isolation::NestedPid => {
            let nest = nest::start(ours, mould, &signals)?;
            stop("watch", watch(&signals, agent, nest)).map(|over| words(&over, agent))
        }
    }
}

fn words(over: &Over, agent: Pid) -> String {
    match over {
        // Its socket closes a moment before its death is seen.
        Over::AgentGone => "the agent ended".into(),
        Over::Lost(pid) if *pid == agent => "the agent ended".into(),
        Over::Lost(_) => "the nest ended".into(),
        Over::Told => "told to end".into(),
    }
}

/// Turns an error into a sentence that names the step.
pub(crate) fn stop<T, E: std::fmt::Display>(step: &str, result: Result<T, E>) -> Result<T, Stop> {
    result.map_err(|error| format!("{step}: {error}"))
}

/// Refuses to start without the separation that was asked for.
fn check_identity(config: &InitConfig) -> Result<(), Stop> {
    let uid = rustix::process::geteuid().as_raw();
    match config.isolation {
        Isolation::TwoUid => {
            let needed =
                CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL | CapabilitySet::CHOWN;
            let has = stop("capabilities", rustix::thread::capabilities(None))?.effective;
            if uid != 0 || !has.contains(needed) {
                return Err(format!(
                    "isolation two_uid needs user 0 with SETUID, SETGID, KILL and CHOWN inside the container; \
                     this is user {uid} with capabilities {:#x}",
                    has.bits()
                ));
            }
        }
        Isolation::NestedPid if uid != USER_ID => {
            return Err(format!("isolation nested_pid expects to run as user {USER_ID}, and this is {uid}"));
        }
        Isolation::NestedPid => {}
    }
    Ok(())
}

/// What is there already is not used: an image may have planted it, and what init gives away must be its own.
fn run_dir(isolation: Isolation) -> Result<(), Stop> {
    let make = |path: &str, mode| match rustix::fs::mkdir(path, rustix::fs::Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("{path}: {error} (the container needs a fresh, writable /run)")),
    };
    make(RUN_DIR, 0o755)?;
    for (path, owner) in [(RUN_USER_DIR, USER_ID), (RUN_AGENT_DIR, AGENT_ID)] {
        make(path, 0o700)?;
        if isolation == Isolation::TwoUid {
            let (uid, gid) = (rustix::fs::Uid::from_raw(owner), rustix::fs::Gid::from_raw(owner));
            stop(path, rustix::fs::chown(path, Some(uid), Some(gid)))?;
        }
    }
    Ok(())
}

fn keep_capabilities(kept: CapabilitySet) -> Result<(), Stop> {
    if kept.is_empty() {
        return stop("capabilities", drop_capabilities());
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    stop("capabilities", rustix::thread::set_capabilities(None, sets))
}

/// Forks the agent, which takes the configuration; what of the secret stays here is wiped.
fn start_agent(
    mut config: InitConfig,
    listener: OwnedFd,
    theirs: OwnedFd,
    ours: &OwnedFd,
    signals: &OwnedFd,
) -> Result<Pid, Stop> {
    match stop("fork", sys::fork())? {
        Forked::Child => {
            // The parent's ends, which the borrows keep alive here: the agent has no business with them.
            sys::close_number(ours.as_raw_fd());
            sys::close_number(signals.as_raw_fd());
            agent::main(config, listener, theirs)
        }
        Forked::Parent(pid) => {
            config::wipe(&mut config.token);
            drop(theirs);
            // Held open, so that Bay's connections wait in the queue rather than fail, for as long as init lives.
            std::mem::forget(listener);
            Ok(pid)
        }
    }
}

/// Init's loop where the spawner is elsewhere: reap, and end with the first of the vital processes. Told to end,
/// it tells the nest, which sees to everything inside, and ends with it or when it takes too long.
fn watch(signals: &OwnedFd, agent: Pid, nest: Pid) -> std::io::Result<Over> {
    let mut told: Option<Instant> = None;
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if !(status.exited() || status.signaled()) {
                continue;
            }
            match told {
                None if pid == agent || pid == nest => return Ok(Over::Lost(pid)),
                Some(_) if pid == nest => return Ok(Over::Told),
                // The agent goes first in an orderly end.
                None | Some(_) => {}
            }
        }
        let left = told.map(|told| (DRAIN + NEST_GRACE).saturating_sub(told.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Over::Told);
        }
        if told.is_some() {
            // Again and again: a signal of user code's that waits for the nest swallows ours.
            let _ = kill_process(nest, Signal::TERM);
        }
        let left = left.map(|left| left.min(TELL_AGAIN)).map(|left| Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if told_to_end(signals, Heeds::Anyone) && told.is_none() {
            told = Some(Instant::now());
        }
    }
}
