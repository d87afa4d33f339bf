//! `bay launch`: a process of its own, with one thread, between Bay and a sandbox.
//!
//! ```text
//!  Bay                          launcher (root)                       bubblewrap → init
//!   │── plan, listener, stdin ───▶ new session
//!   │                              own mount namespace, parts staged
//!   │                              own user (and network) namespace
//!   │◀── namespaces ─────────────┤
//!   │ joins it to the cgroups      waits
//!   │ writes its uid and gid maps
//!   │ connects its network
//!   │── go ──────────────────────▶ becomes uid 0 inside = BASE outside
//!   │                              sets up the network inside
//!   │                              starts bubblewrap ────────────────▶ …
//!   │◀── running: pidfds ────────┤
//!                                  ends: nobody's child, nobody's death signal
//! ```
//!
//! As a normal user there is nothing to stage and bubblewrap makes the user namespace. The user namespace is made
//! while still root, since hosts that forbid it to others (Ubuntu) allow it to root; its owner is root, as is right.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use bay_ship_api::LISTEN_FD;
use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, setrlimit, setsid};
use rustix::thread::{
    Gid, Uid, UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};
use serde::{Deserialize, Serialize};

use super::netlink::{MAIN_TABLE, Netlink};
use super::network::{Addresses, INSIDE, Prefix, SUBNET_BITS, interface_index};
use super::{channel, command, identity};

/// Where parts are staged: hidden beneath a file system of our own, in a mount namespace of our own.
pub(super) const STAGE: &str = "/run";

/// Bubblewrap names its child within a few milliseconds.
const CHILD_LIMIT: Duration = Duration::from_secs(10);

/// Routing table of what a rootless sandbox may not reach, and the order of the rules about it.
const DENIED_TABLE: u8 = 100;
const RESOLVER_PRIORITY: u32 = 100;
const DENIED_PRIORITY: u32 = 200;

/// What a resolver is reached by, and nothing else of it.
const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS: u16 = 53;

/// What to launch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The bubblewrap binary.
    pub(super) bwrap: PathBuf,
    /// Its arguments.
    pub(super) args: Vec<OsString>,
    /// Root: parts of the container to stage.
    pub(super) stage: Vec<Staged>,
    /// Which namespaces to make.
    pub(super) namespaces: Namespaces,
}

/// Something that root opens while it may, and shows to the sandbox's user at [`STAGE`]`/name`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Staged {
    /// Name at the stage.
    pub(super) name: String,
    /// Path chosen by the operator or by Bay.
    pub(super) path: PathBuf,
    /// Components below it, none of which may be a link.
    pub(super) beneath: Vec<String>,
}

/// Namespaces that the launcher makes before bubblewrap makes the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Namespaces {
    /// Normal user, no network: bubblewrap makes them all.
    Bubblewrap,
    /// Root: mount and user, and network when there are addresses.
    Mapped {
        /// Addresses of a pair of virtual interfaces.
        addresses: Option<Addresses>,
    },
    /// Normal user with the rootless helper: user and network.
    Helper {
        /// Real uid and gid.
        uid: u32,
        /// Real gid.
        gid: u32,
        /// What may not be reached.
        denied: Vec<Prefix>,
        /// What may be reached all the same.
        resolvers: Vec<Ipv4Addr>,
    },
}

/// What the launcher says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub(super) enum Report {
    /// Ready for Bay's part; with the network namespace, where it made one.
    Namespaces,
    /// The sandbox runs; with a pidfd of each.
    Running {
        /// Pid 1 of the sandbox, as seen out here.
        init: i32,
        /// Bubblewrap.
        monitor: i32,
    },
    /// It does not.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What Bay says when its part is done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Go;

/// The whole of the hidden `bay launch`: call it first thing in `main`, before any thread is started.
pub fn launch_main() -> ExitCode {
    match launch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = error.to_string();
            // The log too: Bay may be gone.
            eprintln!("bay launch: {reason}");
            let _ = channel::send(io::stdin(), &Report::Failed { reason }, &[]);
            ExitCode::FAILURE
        }
    }
}

fn step<T, E: Into<io::Error>>(what: &str, outcome: Result<T, E>) -> io::Result<T> {
    outcome.map_err(|error| {
        let error = error.into();
        io::Error::new(error.kind(), format!("{what}: {error}"))
    })
}

fn launch() -> io::Result<()> {
    close_inherited()?;
    let stdin = io::stdin();
    let (plan, fds): (Plan, Vec<OwnedFd>) =
        step("no plan from Bay (this command is Bay's own)", channel::receive(&stdin))?;
    let [listener, config, status] = <[OwnedFd; 3]>::try_from(fds)
        .map_err(|_| io::Error::other("the plan came without its descriptors"))?;
    if listener.as_raw_fd() != LISTEN_FD {
        return Err(io::Error::other("the listening socket did not arrive as descriptor 3"));
    }
    // Not fatal: already a leader when a person runs this by hand.
    let _ = setsid();
    let network = isolate(&plan)?;
    let network: Vec<BorrowedFd<'_>> = network.iter().map(AsFd::as_fd).collect();
    channel::send(&stdin, &Report::Namespaces, &network)?;
    let (Go, _) = step("Bay ended during the start", channel::receive(&stdin))?;
    enter(&plan.namespaces)?;
    limit_inheritance()?;
    start(&plan, listener, config, &status)
}

/// Closes whatever else came along: descriptors that Bay itself inherited from a careless parent.
fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        if let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) {
            open.push(number);
        }
    }
    for number in open.into_iter().filter(|number| *number > 2 && is_open(*number)) {
        #[expect(
            unsafe_code,
            reason = "descriptors inherited across exec have no owner in this process to close them"
        )]
        // SAFETY: this runs first, in a process with one thread that has opened nothing it still holds: the directory
        // read above is closed again (its number is no longer open), the standard library keeps only 0, 1 and 2. So no
        // value anywhere owns `number`, and making this one its owner is sound.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(())
}

/// True while the number is a descriptor of this process.
fn is_open(number: i32) -> bool {
    fs::symlink_metadata(Path::new("/proc/self/fd").join(number.to_string())).is_ok()
}

/// Makes the namespaces; returns the network namespace if one was made.
fn isolate(plan: &Plan) -> io::Result<Option<OwnedFd>> {
    let with_network = match &plan.namespaces {
        Namespaces::Bubblewrap => return Ok(None),
        Namespaces::Mapped { addresses } => {
            step("own mount namespace", unshare(UnshareFlags::NEWNS))?;
            stage(&plan.stage)?;
            addresses.is_some()
        }
        Namespaces::Helper { .. } => true,
    };
    let network = if with_network { UnshareFlags::NEWNET } else { UnshareFlags::empty() };
    step("own user namespace", unshare(UnshareFlags::NEWUSER | network))?;
    if let Namespaces::Helper { uid, gid, .. } = &plan.namespaces {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    if !with_network {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(Some(step("network namespace", rustix::fs::open("/proc/self/ns/net", flags, Mode::empty()))?))
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    #[expect(unsafe_code, reason = "rustix marks unshare unsafe for CLONE_FILES, which is never passed here")]
    // SAFETY: the one hazard is a descriptor table that threads no longer share. No caller passes FILES, and this
    // process has one thread.
    unsafe {
        unshare_unsafe(flags)
    }
}

/// Shows each part at [`STAGE`], where the sandbox's user can reach it though its real place is closed to it.
fn stage(parts: &[Staged]) -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("private mounts", mount_change("/", private))?;
    // All are opened before the stage covers anything.
    let opened: Vec<(&Staged, OwnedFd)> =
        parts.iter().map(|part| Ok((part, open_part(part)?))).collect::<io::Result<_>>()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    step("stage", mount("tmpfs", STAGE, "tmpfs", flags, Some(c"mode=0755,size=1m")))?;
    for (part, fd) in &opened {
        let target = Path::new(STAGE).join(&part.name);
        let stat = rustix::fs::fstat(fd)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            fs::create_dir(&target)?;
        } else {
            File::create(&target)?;
        }
        let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
        step(&part.name, mount_bind_recursive(source, &target))?;
    }
    Ok(())
}

fn open_part(part: &Staged) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut fd = step(&part.path.to_string_lossy(), rustix::fs::open(&part.path, flags, Mode::empty()))?;
    for name in &part.beneath {
        let outcome = rustix::fs::openat(&fd, name, flags | OFlags::NOFOLLOW, Mode::empty());
        fd = step(name, outcome)?;
    }
    // O_PATH opens a link as such; a mount of one would lead wherever it points.
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    if kind.is_dir() || kind.is_file() {
        Ok(fd)
    } else {
        Err(io::Error::other(format!("{} is neither a file nor a directory", part.name)))
    }
}

/// Once maps and network are there: takes the sandbox's identity and brings its network up.
fn enter(namespaces: &Namespaces) -> io::Result<()> {
    match namespaces {
        Namespaces::Bubblewrap => Ok(()),
        Namespaces::Mapped { addresses } => {
            step("groups", set_thread_groups(&[]))?;
            let (gid, uid) = (Gid::ROOT, Uid::ROOT);
            step("gid", set_thread_res_gid(gid, gid, gid))?;
            step("uid", set_thread_res_uid(uid, uid, uid))?;
            match addresses {
                Some(addresses) => step("network inside", configure(*addresses)),
                None => Ok(()),
            }
        }
        Namespaces::Helper { denied, resolvers, .. } => step("network rules", deny(denied, resolvers)),
    }
}

fn no_ipv6() -> io::Result<()> {
    for scope in ["all", "default"] {
        match fs::write(Path::new("/proc/sys/net/ipv6/conf").join(scope).join("disable_ipv6"), "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// No IPv6 address for the interface, ever, not even link-local: so nothing is reached by it. The protocol itself stays
/// on, for init sets its rules against IPv6 all the same, and the kernel refuses those where it is off.
fn no_ipv6_address() -> io::Result<()> {
    for (key, value) in [("addr_gen_mode", "1"), ("accept_ra", "0")] {
        match fs::write(Path::new("/proc/sys/net/ipv6/conf").join(INSIDE).join(key), value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn configure(addresses: Addresses) -> io::Result<()> {
    no_ipv6_address()?;
    let mut netlink = Netlink::open()?;
    netlink.up(interface_index("lo")?)?;
    let index = interface_index(INSIDE)?;
    netlink.add_address(index, addresses.inside, SUBNET_BITS)?;
    netlink.up(index)?;
    netlink.add_default_route(addresses.gateway)
}

/// Rules that nobody inside can change: this network namespace belongs to a user namespace around the sandbox's.
fn deny(denied: &[Prefix], resolvers: &[Ipv4Addr]) -> io::Result<()> {
    no_ipv6()?;
    let mut netlink = Netlink::open()?;
    netlink.up(interface_index("lo")?)?;
    for (address, bits) in denied {
        netlink.add_unreachable(DENIED_TABLE, *address, *bits)?;
    }
    for resolver in resolvers {
        for protocol in [TCP, UDP] {
            netlink.add_port_rule(RESOLVER_PRIORITY, MAIN_TABLE, *resolver, protocol, DNS)?;
        }
    }
    netlink.add_rule(DENIED_PRIORITY, DENIED_TABLE)
}

/// Leaves behind what would otherwise be inherited silently.
fn limit_inheritance() -> io::Result<()> {
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    // One byte rather than none: it also keeps the kernel from handing a dump to the host's own handler.
    setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) })?;
    new_session_keyring();
    Ok(())
}

/// Kernel keys (Kerberos tickets, for instance) of whoever started Bay stay out of the sandbox's reach.
fn new_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    #[expect(unsafe_code, reason = "no crate here wraps keyctl")]
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING takes a name or null for an anonymous keyring, and touches no memory of ours.
    // A kernel without keys answers ENOSYS, and then there is nothing to leave behind.
    unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>());
    }
}

/// Starts bubblewrap and tells Bay who is who.
fn start(plan: &Plan, listener: OwnedFd, config: OwnedFd, status: &OwnedFd) -> io::Result<()> {
    let (mut info, info_writer) = io::pipe()?;
    for fd in [listener.as_fd(), info_writer.as_fd(), status.as_fd()] {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    let mut bwrap: Command = command::clean(&plan.bwrap);
    bwrap.arg("--info-fd").arg(info_writer.as_raw_fd().to_string());
    bwrap.arg("--json-status-fd").arg(status.as_raw_fd().to_string());
    bwrap.args(&plan.args).stdin(Stdio::from(config));
    let child = step("bubblewrap", bwrap.spawn())?;
    // Closed here, so that the end of bubblewrap ends the reading below.
    drop((info_writer, listener));
    let init = child_pid(&mut info)?;
    let monitor = i32::try_from(child.id()).map_err(io::Error::other)?;
    // Bubblewrap is our child and not reaped, its own child is not reaped by it unless it ended: neither pid is reused.
    let pidfds = [pidfd(init)?, pidfd(monitor)?];
    let running = Report::Running { init, monitor };
    channel::send(io::stdin(), &running, &[pidfds[0].as_fd(), pidfds[1].as_fd()])
}

fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no such pid"))?;
    step("the sandbox ended at once", pidfd_open(pid, PidfdFlags::empty()))
}

/// Reads the pid of bubblewrap's child from what it says of it.
fn child_pid(info: &mut io::PipeReader) -> io::Result<i32> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Info {
        child_pid: i32,
    }
    let mut text = Vec::new();
    loop {
        if let Ok(info) = serde_json::from_slice::<Info>(&text) {
            return Ok(info.child_pid);
        }
        if !identity::wait_readable(&*info, CHILD_LIMIT)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "bubblewrap says nothing"));
        }
        let mut buffer = [0_u8; 1024];
        match info.read(&mut buffer)? {
            0 => return Err(io::Error::other("bubblewrap ended without starting the sandbox")),
            length => text.extend(&buffer[..length]),
        }
    }
}
