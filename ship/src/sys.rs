//! The few system calls that `rustix` does not offer, each behind a safe function.
//!
//! Everything unsafe in Ship is in this file.

use std::ffi::{CString, c_char, c_int, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which side of a [`fork`] this is.
pub(crate) enum Forked {
    /// The process that called, with the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Reads what has arrived at a descriptor that does not block. Unlike tokio's `try_read` it asks the kernel: that one
/// says "nothing" for as long as the runtime has not heard of what came, however long ago that was.
pub(crate) fn read_now(from: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| rustix::io::read(&from, &mut *buffer))?)
}

/// Duplicates the calling process, which must have one thread: init and nest never start a second one.
///
/// Checked at run time, because a child of a threaded process could find any lock taken for ever.
pub(crate) fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(io::Error::other("fork in a process with more than one thread"));
    }
    fork_single()
}

/// [`fork`] without the look at `/proc`, for the spawner, which forks on every call and starts no threads.
#[expect(unsafe_code, reason = "fork has no safe form; callers have one thread")]
pub(crate) fn fork_single() -> io::Result<Forked> {
    // SAFETY: the process has a single thread, so that the child's copy of memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Pid::from_raw(pid).map(Forked::Parent).ok_or_else(|| io::Error::other("fork returned no pid")),
    }
}

/// Ends the process at once: no destructors, no flushing of what a parent wrote into a buffer.
#[expect(unsafe_code, reason = "std has no _exit")]
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any value and does not return.
    unsafe { libc::_exit(code) }
}

/// Takes ownership of a descriptor that the driver passed at a fixed number.
#[expect(unsafe_code, reason = "inherited descriptors arrive as numbers")]
pub(crate) fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks; it fails for a number that is not open.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is open, and called once at start-up, before anything else could own it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor from `first` on, whoever thinks to own it: only just before exec, or at the very
/// start, when nothing has been opened yet.
#[expect(unsafe_code, reason = "closing by number is the point")]
pub(crate) fn close_from(first: c_int) {
    // SAFETY: callers are about to exec or have opened nothing, so no owner will close the number again.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, c_int::MAX, 0) };
    if done == -1 {
        // Kernels before 5.9.
        for fd in first..4096 {
            // SAFETY: as above; closing a number that is not open fails harmlessly.
            unsafe { libc::close(fd) };
        }
    }
}

/// The signals that init and nest read from a descriptor.
pub(crate) const WATCHED: [c_int; 5] =
    [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// Blocks [`WATCHED`] and returns a non-blocking descriptor that becomes readable when one is pending.
#[expect(unsafe_code, reason = "signal masks and signalfd have no safe form")]
pub(crate) fn watch_signals() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sigset_t is valid storage, and sigemptyset initialises it.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a live sigset_t and the numbers are valid signals; there is a single thread.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in WATCHED {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: `set` was initialised above; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Size of one record read from [`watch_signals`]; the signal's number is its first four bytes.
pub(crate) const SIGNAL_RECORD: usize = size_of::<libc::signalfd_siginfo>();

/// Unblocks every signal and gives each its default action: what a new program expects.
#[expect(unsafe_code, reason = "signal dispositions have no safe form")]
pub(crate) fn default_signals() {
    // SAFETY: SIG_DFL is a valid disposition for every signal; for numbers where it may not be set the call
    // fails without effect. An emptied set unblocks everything.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Makes the calling thread touch files as `uid` and `gid`, whatever its other identities are. Threads made
/// by it inherit that.
#[expect(unsafe_code, reason = "setfsuid has no safe form")]
pub(crate) fn set_file_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: these calls take plain numbers. They report no errors, so the second of each pair, with an
    // impossible id, reads back what is in force.
    let (uid_now, gid_now) = unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX))
    };
    if i64::from(uid_now) == i64::from(uid) && i64::from(gid_now) == i64::from(gid) {
        Ok(())
    } else {
        Err(io::Error::other("the kernel refused the file-system identity"))
    }
}

/// Separates the calling process, which must have one thread, into new namespaces.
#[expect(unsafe_code, reason = "rustix marks unshare unsafe for flags that part shared descriptors")]
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: only namespace flags are passed, never FILES, and the process has one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Installs a seccomp filter for the calling thread and all it becomes. No-new-privileges must be set.
#[expect(unsafe_code, reason = "the kernel reads the program through a pointer")]
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::other("filter too long"))?;
    let header = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `header` points to `len` valid instructions that outlive the call; the kernel only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            0 as c_ulong,
            &raw const header,
        )
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Becomes another program. Returns only when that failed.
#[expect(unsafe_code, reason = "execve takes arrays of pointers")]
pub(crate) fn exec(path: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end in null and point to NUL-terminated strings that live until the call returns.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Closes a descriptor by number in a freshly forked child, whose owner lives in the parent's half of the code.
#[expect(unsafe_code, reason = "the owner cannot be dropped here, only its number closed")]
pub(crate) fn close_number(fd: RawFd) {
    // SAFETY: called in a child that never returns to the code that owns the descriptor, so nothing closes or
    // uses the number again.
    unsafe {
        libc::close(fd);
    }
}

/// Hands a descriptor to the runtime, which says when it is ready. Must not block where it is read or written.
#[expect(unsafe_code, reason = "the runtime keeps the number and trusts its owner")]
pub(crate) fn watch<F: Steady>(fd: F, interest: Interest) -> io::Result<AsyncFd<F>> {
    // SAFETY: what is `Steady` is the same open descriptor until it is dropped, which the `AsyncFd` does itself.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// Makes a write to a closed pipe or socket an error, not the end of the process.
#[expect(unsafe_code, reason = "signal dispositions have no safe form")]
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is a valid disposition for SIGPIPE.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Asks the kernel to begin writing a range of a file to its disk, without waiting. Only a hint: where a file system
/// does not take it, a later fsync does all the work.
#[expect(unsafe_code, reason = "sync_file_range has no safe form")]
pub(crate) fn start_writeback(file: BorrowedFd<'_>, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    // SAFETY: the descriptor is open for the call, and the kernel takes plain numbers with it.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// What stands for one and the same open descriptor as long as it lives.
pub(crate) trait Steady: AsRawFd {}

impl Steady for OwnedFd {}
impl Steady for Arc<OwnedFd> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_arrived_is_read_before_the_runtime_hears_of_it() {
        let (sender, receiver) = tokio::net::unix::pipe::pipe().unwrap();
        let mut buffer = [0; 8];
        assert!(receiver.try_read(&mut buffer).is_err(), "nothing is there yet, and the runtime knows it");
        rustix::io::write(&sender, b"said").unwrap();
        assert!(receiver.try_read(&mut buffer).is_err(), "the runtime had no turn to hear of it");
        assert_eq!(read_now(&receiver, &mut buffer).unwrap(), 4);
        assert_eq!(read_now(&receiver, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
