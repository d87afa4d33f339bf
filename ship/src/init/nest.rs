//! The nest, where a container has one user id only: a user, PID and mount namespace inside the container's own,
//! with its own `/proc`, so that user code cannot name, see or signal init and agent.
//!
//! ```text
//! init ── agent
//!   └──── nest (process 1 of the inner world; the spawner) ── user code
//! ```

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use bay_ship_api::{SPOOL_DIR, USER_ID};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};
use rustix::thread::{UnshareFlags, set_name};

use super::{Stop, stop};
use crate::log;
use crate::spawner::child::{Mould, drop_capabilities};
use crate::spawner::seccomp;
use crate::spawner::server::{Heeds, Server};
use crate::sys::{self, Forked};

/// Starts the nest and returns its process id, as init sees it.
///
/// A helper makes the namespaces and forks the nest, so that init stays outside; then it goes, and the nest
/// becomes init's child.
pub(super) fn start(agent: OwnedFd, mould: Mould, signals: &OwnedFd) -> Result<Pid, Stop> {
    let (from_helper, to_init) = stop("pipe", pipe_with(PipeFlags::CLOEXEC))?;
    match stop("fork", sys::fork())? {
        Forked::Child => {
            sys::close_number(signals.as_raw_fd());
            drop(from_helper);
            match helper(agent, mould, &to_init) {
                Ok(()) => sys::exit_now(0),
                Err(why) => {
                    log(&format!("nest: {why}"));
                    sys::exit_now(1)
                }
            }
        }
        Forked::Parent(_) => {
            drop((agent, to_init));
            let mut pid = [0u8; 4];
            read_exact(&from_helper, &mut pid)
                .ok()
                .and_then(|()| Pid::from_raw(i32::from_le_bytes(pid)))
                .ok_or_else(|| "isolation nested_pid cannot be had here (the line before says why)".into())
        }
    }
}

fn read_exact(from: &OwnedFd, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::read(from, &mut buffer[done..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes the namespaces, forks process 1 of the new world, waits until it is ready, tells init its id and leaves.
fn helper(agent: OwnedFd, mould: Mould, to_init: &OwnedFd) -> Result<(), Stop> {
    // Its own /proc files must be writable for it, for the maps. No user code exists yet that could look.
    stop("dumpable", set_dumpable_behavior(DumpableBehavior::Dumpable))?;
    stop("user namespace", sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWPID | UnshareFlags::NEWNS))?;
    stop("setgroups", fs::write("/proc/self/setgroups", "deny"))?;
    let map = format!("{USER_ID} {USER_ID} 1");
    stop("user map", fs::write("/proc/self/uid_map", &map))?;
    stop("group map", fs::write("/proc/self/gid_map", &map))?;
    let (from_nest, to_helper) = stop("pipe", pipe_with(PipeFlags::CLOEXEC))?;
    match stop("fork", sys::fork())? {
        Forked::Child => {
            sys::close_number(to_init.as_raw_fd());
            drop(from_nest);
            if let Err(why) = nest(agent, mould, to_helper) {
                log(&format!("nest: {why}"));
            }
            sys::exit_now(1)
        }
        Forked::Parent(pid) => {
            drop((agent, to_helper));
            stop("nest", read_exact(&from_nest, &mut [0]))?;
            stop("report", rustix::io::write(to_init, &pid.as_raw_pid().to_le_bytes())).map(|_| ())
        }
    }
}

fn nest(agent: OwnedFd, mould: Mould, to_helper: OwnedFd) -> Result<(), Stop> {
    let _ = set_name(c"ship-nest");
    // What the spawner starts inherits this score: user code is the first to go when memory runs out.
    let _ = fs::write("/proc/self/oom_score_adj", b"500");
    stop("mounts", mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    stop("own /proc", mount("proc", "/proc", "proc", flags, None))?;
    // Some of these anybody may open for writing.
    stop("/proc/sys", mount_bind("/proc/sys", "/proc/sys"))?;
    stop("/proc/sys", mount_remount("/proc/sys", flags | MountFlags::BIND | MountFlags::RDONLY, ""))?;
    // The same user as the agent could otherwise write where only the agent may.
    for folder in [super::RUN_AGENT_DIR, SPOOL_DIR] {
        if Path::new(folder).is_dir() {
            stop(folder, mount("none", folder, "tmpfs", flags | MountFlags::RDONLY, c"size=4k,mode=0500"))?;
        }
    }
    // The listing must show this process alone, or the separation is not there.
    let seen = stop("own /proc", fs::read_link("/proc/self"))?;
    if seen.as_os_str() != "1" {
        return Err("/proc does not show the new PID namespace".into());
    }
    stop("dumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable))?;
    stop("capabilities", drop_capabilities())?;
    stop("no-new-privileges", rustix::thread::set_no_new_privs(true))?;
    stop("seccomp", seccomp::install())?;
    // For SIGCHLD, and for what init passes on; what user code sends is read and not heeded.
    let signals = stop("signals", sys::watch_signals())?;
    stop("report", rustix::io::write(&to_helper, &[1]))?;
    drop(to_helper);
    let mut server = Server::new(agent, signals, mould, Vec::new(), Heeds::Outside);
    stop("spawner", server.run()).map(|_| ())
}
