//! Shell commands: one process group each, bounded output, an end that is really waited for.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bay_ship_api::WORKSPACE;
use bay_ship_api::http::{MAX_INLINE_OUTPUT, ShellExecRequest, ShellExecResponse};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;
use tokio::time::{Instant as Deadline, sleep_until};

use crate::agent::error::{Code, Failure};
use crate::spawner::client::{Command, Process, SpawnError, Spawner};
use crate::spawner::protocol::End;
use crate::text::BoundedBytes;
use crate::user::World;

/// From TERM to KILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long the pipes may stay open after the shell itself has ended: a background process may keep them for ever.
const PIPE_GRACE: Duration = Duration::from_millis(50);
/// How long they may after everything was killed.
const KILLED_GRACE: Duration = Duration::from_millis(500);
/// A pipe's size, unless its user made it larger.
const PIPE_CAPACITY: usize = 64 << 10;
/// Commands at once.
const MAX_RUNNING: usize = 64;
/// The kernel takes at most 128 KiB in one argument, its NUL included.
const MAX_COMMAND: usize = (128 << 10) - 1;
/// Names and values together, per call.
const MAX_ENV: usize = 32 << 10;
/// Longest run, as the contract says.
const MAX_TIMEOUT: u32 = 3600;

/// Runs shell commands. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shell {
    spawner: Spawner,
    world: Arc<World>,
    running: Arc<Semaphore>,
    count: Arc<AtomicU64>,
}

impl Shell {
    pub(crate) fn new(spawner: Spawner, world: Arc<World>) -> Self {
        Self { spawner, world, running: Arc::new(Semaphore::new(MAX_RUNNING)), count: Arc::default() }
    }

    /// Runs one command to its end. `cwd` has been checked to lie beneath `/workspace`.
    ///
    /// In a task of its own: when the caller goes away, the command keeps its timeout and is still waited for.
    pub(crate) async fn exec(&self, request: ShellExecRequest) -> Result<ShellExecResponse, Failure> {
        check(&request)?;
        let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() else {
            return Err(Failure::new(Code::Busy, format!("{MAX_RUNNING} commands are running already")));
        };
        let this = self.clone();
        let run = tokio::spawn(async move {
            let _permit = permit;
            this.run(request).await
        });
        run.await.unwrap_or_else(|_| Err(Failure::new(Code::RuntimeError, "the command's task was lost")))
    }

    async fn run(&self, request: ShellExecRequest) -> Result<ShellExecResponse, Failure> {
        let shell = self.world.shell.ok_or_else(|| {
            Failure::new(Code::CapabilityNotSupported, "there is no shell in this container")
        })?;
        let mut argv: Vec<Vec<u8>> = vec![shell.into()];
        if shell.ends_with("bash") {
            argv.extend([b"--norc".to_vec(), b"--noprofile".to_vec()]);
        }
        argv.extend([b"-c".to_vec(), request.command.into_bytes()]);
        let mut cwd = WORKSPACE.to_owned();
        if let Some(sub) = request.cwd.as_deref().filter(|sub| !matches!(*sub, "" | ".")) {
            cwd.push('/');
            cwd.push_str(sub);
        }
        let (stdin, feed) = stdin(request.stdin)?;
        let (stdout, theirs_out) = capture_pipe()?;
        let (stderr, theirs_err) = capture_pipe()?;
        let command = Command { argv, env: self.world.shell_env(&request.env), cwd: cwd.into() };
        let started = Instant::now();
        let process = self.spawner.spawn(command, [stdin, theirs_out, theirs_err]).await.map_err(refused)?;
        let timeout = Duration::from_secs(request.timeout.into());
        let ran = follow(process, stdout, stderr, feed, timeout).await;
        let (exit_code, signal) = match ran.end {
            End::Code(code) if !ran.timed_out => (Some(code), None),
            End::Code(_) => (None, None),
            End::Signal(signal) => (None, Some(signal_name(signal))),
        };
        Ok(ShellExecResponse {
            success: exit_code == Some(0),
            truncated: ran.stdout.truncated() || ran.stderr.truncated(),
            stdout: ran.stdout.into_text(),
            stderr: ran.stderr.into_text(),
            exit_code,
            signal,
            timed_out: ran.timed_out,
            execution_time_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            process_id: format!("proc_{}", self.count.fetch_add(1, Ordering::Relaxed) + 1),
        })
    }
}

fn check(request: &ShellExecRequest) -> Result<(), Failure> {
    if request.command.len() > MAX_COMMAND {
        return Err(Failure::field(
            "command",
            format!("longer than {MAX_COMMAND} bytes; write it to a file and run that"),
        ));
    }
    if request.command.contains('\0') {
        return Err(Failure::field("command", "contains a NUL"));
    }
    if !(1..=MAX_TIMEOUT).contains(&request.timeout) {
        return Err(Failure::field("timeout", format!("must be from 1 to {MAX_TIMEOUT} seconds")));
    }
    if !request.env.keys().all(|name| crate::init::is_name(name)) {
        return Err(Failure::field("env", "names must look like [A-Za-z_][A-Za-z0-9_]*"));
    }
    if request.env.values().any(|value| value.contains('\0')) {
        return Err(Failure::field("env", "a value contains a NUL"));
    }
    if request.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>() > MAX_ENV {
        return Err(Failure::field("env", format!("larger than {MAX_ENV} bytes")));
    }
    Ok(())
}

/// What a spawn that failed means to a caller.
pub(crate) fn refused(error: SpawnError) -> Failure {
    match error {
        SpawnError::TooLarge => Failure::field("command", "command and environment are too large together"),
        SpawnError::Refused(libc::EAGAIN | libc::ENOMEM) => {
            Failure::new(Code::Busy, "the sandbox has as many processes as it may have")
        }
        SpawnError::Refused(errno) => Failure::new(
            Code::RuntimeError,
            format!("no process could be started: {}", std::io::Error::from_raw_os_error(errno)),
        ),
        SpawnError::Gone => Failure::new(Code::RuntimeError, "the container is ending"),
    }
}

/// A pipe whose reading end is ours and does not block, and whose writing end is a program's stdout.
pub(crate) fn capture_pipe() -> Result<(pipe::Receiver, OwnedFd), Failure> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

/// What is to be written into a program's stdin.
struct Feed {
    pipe: pipe::Sender,
    bytes: Vec<u8>,
}

/// The program's stdin, and what to write into it.
fn stdin(text: Option<String>) -> Result<(OwnedFd, Option<Feed>), Failure> {
    let Some(text) = text else {
        return Ok((dev_null()?, None));
    };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(write.as_fd(), true)?;
    Ok((read, Some(Feed { pipe: pipe::Sender::from_owned_fd(write)?, bytes: text.into_bytes() })))
}

/// Never a socket: bash takes a socket on stdin for a remote login and would read `.bashrc`.
pub(crate) fn dev_null() -> Result<OwnedFd, Failure> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

struct Ran {
    end: End,
    timed_out: bool,
    stdout: BoundedBytes,
    stderr: BoundedBytes,
}

/// Reads both pipes, keeps the time, and sees the process to its end.
async fn follow(
    mut process: Process,
    mut stdout: pipe::Receiver,
    mut stderr: pipe::Receiver,
    feed: Option<Feed>,
    timeout: Duration,
) -> Ran {
    let (mut out, mut err) = (BoundedBytes::new(MAX_INLINE_OUTPUT), BoundedBytes::new(MAX_INLINE_OUTPUT));
    let mut timed_out = false;
    let end = {
        let reading = async {
            tokio::join!(drain(&mut stdout, &mut out), drain(&mut stderr, &mut err));
        };
        let feeding = async {
            if let Some(Feed { mut pipe, bytes }) = feed {
                // A program that does not read its stdin is no error.
                let _ = pipe.write_all(&bytes).await;
            }
        };
        tokio::pin!(reading, feeding);
        let (mut read, mut fed) = (false, false);
        let mut end = None;
        let mut killed = false;
        let mut until = Deadline::now() + timeout;
        loop {
            tokio::select! {
                () = &mut feeding, if !fed => fed = true,
                () = &mut reading, if !read => {
                    read = true;
                    if end.is_some() { break }
                }
                ended = process.wait(), if end.is_none() => {
                    end = Some(ended);
                    if read { break }
                    if !timed_out {
                        until = Deadline::now() + PIPE_GRACE;
                    }
                }
                () = sleep_until(until) => match (end, timed_out, killed) {
                    // Past the grace: whoever still holds the pipes is in the background.
                    (Some(_), false, _) | (Some(_), _, true) => break,
                    (_, false, _) => {
                        timed_out = true;
                        process.signal(libc::SIGTERM);
                        until = Deadline::now() + TERM_GRACE;
                    }
                    (_, true, false) => {
                        killed = true;
                        process.kill_everything();
                        until = Deadline::now() + KILLED_GRACE;
                    }
                    // Not even KILL ends it (it may be stuck in the kernel): answer all the same.
                    (None, true, true) => {
                        end = Some(End::Signal(libc::SIGKILL));
                        break;
                    }
                },
            }
        }
        if timed_out && !killed {
            // Everything has closed its pipes in time, but some may have done so without ending.
            process.kill_everything();
        }
        end.unwrap_or(End::Signal(libc::SIGKILL))
    };
    rest(&stdout, &mut out);
    rest(&stderr, &mut err);
    Ran { end, timed_out, stdout: out, stderr: err }
}

/// Takes what lies in a pipe right now: all that the program itself can have left there.
fn rest(pipe: &pipe::Receiver, into: &mut BoundedBytes) {
    let mut chunk = vec![0u8; 8192];
    let mut left = PIPE_CAPACITY;
    while left > 0 {
        match pipe.try_read(&mut chunk) {
            Ok(count) if count > 0 => {
                into.push(&chunk[..count]);
                left = left.saturating_sub(count);
            }
            _ => return,
        }
    }
}

/// Reads to the end, keeping only what the bound allows: a program must never be stopped by a full pipe.
async fn drain(pipe: &mut pipe::Receiver, into: &mut BoundedBytes) {
    let mut chunk = vec![0u8; 8192];
    while let Ok(count) = pipe.read(&mut chunk).await {
        if count == 0 {
            return;
        }
        into.push(&chunk[..count]);
    }
}

/// For instance `SIGKILL`.
pub(crate) fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match usize::try_from(signal - 1).ok().and_then(|index| NAMES.get(index)) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}
