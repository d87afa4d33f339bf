//! `egress` for a normal user: pasta, from the passt project, carries packets between a network namespace and ordinary
//! sockets of the user's own. What may be reached is decided by routes that [`super::launcher`] sets, since pasta
//! itself would reach whatever the host reaches.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::identity::{self, ProcessId};
use super::{command, network::INSIDE};

/// It sets the namespace up and goes to the background within some 20 ms.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// No ports in either direction, and no address that stands for the host.
const CLOSED: [&str; 13] = [
    "--config-net",
    "--no-map-gw",
    "--ipv4-only",
    "-t",
    "none",
    "-u",
    "none",
    "-T",
    "none",
    "-U",
    "none",
    "--ns-ifname",
    INSIDE,
];

/// Says what is missing for it, short of trying: a trial sandbox does that. (Its own mode of running a command is no
/// trial: pasta 2023_03 leaves a process behind when it fails there.)
pub(super) fn available() -> Result<(), String> {
    if command::find("pasta").is_none() {
        return Err("pasta is not installed (package passt)".to_owned());
    }
    match fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("pasta needs /dev/net/tun: {error} (chmod 666 /dev/net/tun)")),
    }
}

/// Connects the namespaces of `pid` and returns the helper that does it, once it is in place.
pub(super) fn connect(pid: u32, directory: &Path) -> io::Result<ProcessId> {
    let pid_file = directory.join("pasta.pid");
    match fs::remove_file(&pid_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let program = command::find("pasta").ok_or_else(|| io::Error::other("pasta is not installed"))?;
    let mut pasta = command::clean(&program);
    pasta.args(CLOSED).arg("--quiet").arg("--pid").arg(&pid_file).arg(pid.to_string());
    command::run_command(pasta, None, READY_LIMIT)?;
    let text = fs::read_to_string(&pid_file)?;
    let number: i32 = text.trim().parse().map_err(|_| io::Error::other("pasta wrote no pid"))?;
    let raw = Pid::from_raw(number).ok_or_else(|| io::Error::other("pasta wrote no pid"))?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
    ProcessId::pin(number, &pidfd)?.ok_or_else(|| io::Error::other("pasta ended at once"))
}

/// Ends the helper.
pub(super) fn end(helper: ProcessId) -> io::Result<()> {
    let Some(pidfd) = helper.open()? else { return Ok(()) };
    identity::signal(&pidfd, Signal::KILL)?;
    identity::wait_ended(&pidfd, Duration::from_secs(5)).map(drop)
}
