//! Who a process is, beyond its number: pids are reused, a pid with its start time is not.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process of this boot: its pid in Bay's pid namespace and when it started, in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    /// Pid as Bay sees it.
    pub(super) pid: i32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub(super) start: u64,
}

impl ProcessId {
    /// Pins `pid` by `pidfd`, which the caller took while it knew whose pid that was: the start time read here
    /// belongs to that very process, because it is still alive afterwards.
    pub(super) fn pin(pid: i32, pidfd: &OwnedFd) -> io::Result<Option<Self>> {
        let Some(start) = start_time(pid)? else { return Ok(None) };
        Ok((!ended(pidfd)?).then_some(Self { pid, start }))
    }

    /// True when `parent` started it.
    pub(super) fn is_child_of(self, parent: i32) -> bool {
        fs::read(format!("/proc/{}/stat", self.pid)).is_ok_and(|stat| field(&stat, 4) == Some(parent))
    }

    /// A pidfd for it, or none when that process is gone, whoever has its number now.
    pub(super) fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Order matters: the number was looked up first, so an equal start time proves the descriptor.
        match start_time(self.pid)? {
            Some(start) if start == self.start && !ended(&pidfd)? => Ok(Some(pidfd)),
            _ => Ok(None),
        }
    }
}

/// When the process with this pid started; none when there is no such process.
pub(super) fn start_time(pid: i32) -> io::Result<Option<u64>> {
    let stat = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // The process ended between open and read.
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
        Err(error) => return Err(error),
    };
    field(&stat, 22)
        .map(Some)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time in /proc/<pid>/stat"))
}

/// A field of `/proc/<pid>/stat` by its number in the manual, from 3 on. Counted after the last `)`: the command name
/// before it may hold spaces and brackets of its own.
fn field<T: std::str::FromStr>(stat: &[u8], number: usize) -> Option<T> {
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// True once the process behind the descriptor has ended, even if nobody has reaped it.
pub(super) fn ended(pidfd: &OwnedFd) -> io::Result<bool> {
    wait_ended(pidfd, Duration::ZERO)
}

/// Waits until it has ended; false when `limit` passed first. Blocks: for blocking threads only.
pub(super) fn wait_ended(pidfd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    wait_readable(pidfd, limit)
}

/// Polls one descriptor for input, over interruptions, until `limit` has passed.
pub(super) fn wait_readable(fd: impl AsFd, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends a signal; a process that has ended is no error.
pub(super) fn signal(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// This boot's id: pids and start times of another boot mean nothing.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = b"42 (a) b) (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11";
        assert_eq!(field(stat, 22), Some(987_654));
        assert_eq!(field(stat, 4), Some(1));
        assert_eq!(field::<u64>(b"42 no brackets", 22), None);
    }

    #[test]
    fn a_live_process_is_found_again_and_a_reused_pid_is_not() {
        let me = i32::try_from(std::process::id()).unwrap();
        let start = start_time(me).unwrap().unwrap();
        assert!(ProcessId { pid: me, start }.open().unwrap().is_some());
        assert!(ProcessId { pid: me, start: start + 1 }.open().unwrap().is_none());
    }

    #[test]
    fn an_ended_process_is_not_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let id = ProcessId { pid, start: start_time(pid).unwrap().unwrap() };
        let pidfd = id.open().unwrap().unwrap();
        signal(&pidfd, Signal::KILL).unwrap();
        assert!(wait_ended(&pidfd, Duration::from_secs(10)).unwrap());
        // A zombie still has its number and start time, but it has ended.
        assert!(id.open().unwrap().is_none());
        child.wait().unwrap();
        assert!(id.open().unwrap().is_none());
        assert!(start_time(pid).unwrap().is_none());
    }
}
