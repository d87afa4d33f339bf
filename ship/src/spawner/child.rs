//! What a new user process does between fork and exec: give up everything, then become the program.
//!
//! The seccomp filter is not set here: the spawner runs under it already, and what it forks inherits it. Handing the
//! kernel the same filter with every spawn would make it translate it every time.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use bay_ship_api::USER_ID;
use bay_ship_api::init::{Isolation, Limits};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::sys;

/// How every user process is made; fixed at start.
pub(crate) struct Mould {
    /// Whether ids change on the way.
    pub(crate) isolation: Isolation,
    /// Bounds of one process.
    pub(crate) limits: Limits,
}

/// One program to become.
pub(crate) struct Program {
    /// `argv[0]` is an absolute path and the file that is run.
    pub(crate) argv: Vec<CString>,
    /// `NAME=value`.
    pub(crate) env: Vec<CString>,
    /// Absolute.
    pub(crate) cwd: CString,
    /// stdin, stdout, stderr.
    pub(crate) fds: [OwnedFd; 3],
    /// stdin is to become its controlling terminal.
    pub(crate) terminal: bool,
    /// A supplementary group that marks all that descends from this spawn; none where there is one id only.
    pub(crate) mark: Option<u32>,
}

/// Never returns: the process becomes the program, or says why not on its stderr and exits with 127.
pub(crate) fn become_program(mould: &Mould, program: &Program) -> ! {
    let (step, error) = match prepare(mould, program) {
        Err(failed) => failed,
        Ok(()) => match program.argv.first() {
            None => ("exec", io::Error::other("no program named")),
            Some(path) => ("exec", sys::exec(path, &program.argv, &program.env)),
        },
    };
    let text = format!("ship: the process could not be started: {step}: {error}\n");
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    sys::exit_now(127)
}

type Step<T> = Result<T, (&'static str, io::Error)>;

fn at<T, E: Into<io::Error>>(step: &'static str, result: Result<T, E>) -> Step<T> {
    result.map_err(|error| (step, error.into()))
}

fn prepare(mould: &Mould, program: &Program) -> Step<()> {
    let [stdin, stdout, stderr] = &program.fds;
    at("stdin", rustix::stdio::dup2_stdin(stdin))?;
    at("stdout", rustix::stdio::dup2_stdout(stdout))?;
    at("stderr", rustix::stdio::dup2_stderr(stderr))?;
    sys::close_from(3);
    at("session", rustix::process::setsid())?;
    if program.terminal {
        at("terminal", rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()))?;
    }
    sys::default_signals();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    limit(&mould.limits)?;
    if mould.isolation == Isolation::TwoUid {
        // First to die when memory runs out; the nest passes its own raised score on instead.
        let _ = std::fs::write("/proc/self/oom_score_adj", b"500");
        take_user_ids(program.mark)?;
    }
    at("capabilities", drop_capabilities())?;
    at("no-new-privileges", rustix::thread::set_no_new_privs(true))?;
    at("working directory", rustix::process::chdir(&*program.cwd))
}

fn take_user_ids(mark: Option<u32>) -> Step<()> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (uid, gid) = (rustix::fs::Uid::from_raw(USER_ID), rustix::fs::Gid::from_raw(USER_ID));
    let marks: Vec<_> = mark.into_iter().map(rustix::fs::Gid::from_raw).collect();
    at("groups", set_thread_groups(&marks))?;
    at("group", set_thread_res_gid(gid, gid, gid))?;
    at("user", set_thread_res_uid(uid, uid, uid))
}

/// Leaves the calling thread no capability at all.
pub(crate) fn drop_capabilities() -> rustix::io::Result<()> {
    // Kernels without ambient capabilities have none to clear.
    let _ = rustix::thread::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
}

fn limit(limits: &Limits) -> Step<()> {
    let exactly = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    at("core limit", rustix::process::setrlimit(Resource::Core, exactly(0)))?;
    // A hard limit can only be lowered: where the host's is below, that one stays.
    let most = |resource: Resource, wanted: u64| {
        let had = rustix::process::getrlimit(resource).maximum;
        exactly(had.map_or(wanted, |had| had.min(wanted)))
    };
    at("file limit", rustix::process::setrlimit(Resource::Nofile, most(Resource::Nofile, limits.nofile)))?;
    if limits.enforce {
        at("process limit", rustix::process::setrlimit(Resource::Nproc, most(Resource::Nproc, limits.pids)))?;
        at("memory limit", rustix::process::setrlimit(Resource::As, most(Resource::As, limits.memory)))?;
    }
    Ok(())
}
