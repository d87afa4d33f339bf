//! Shell commands: one process group each, bounded output, an end that is really waited for.

mod background;
mod follow;
mod registry;
mod ring;
mod run;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bay_ship_api::WORKSPACE;
use bay_ship_api::http::{ShellExecRequest, ShellExecResponse};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

pub(crate) use background::{DEFAULT_READ, MAX_READ, MAX_WAIT, MIN_READ, ReadRequest};
pub(crate) use registry::Stream;

use crate::agent::error::{Code, Failure};
use crate::spawner::client::{Command, SpawnError, Spawner};
use crate::spawner::protocol::End;
use crate::user::World;
use registry::Registry;

/// From TERM to KILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long the pipes may stay open after the shell itself has ended: a background process may keep them for ever.
const PIPE_GRACE: Duration = Duration::from_millis(50);
/// How long they may after everything was killed.
const KILLED_GRACE: Duration = Duration::from_millis(500);
/// A pipe's size, unless its user made it larger.
const PIPE_CAPACITY: usize = 64 << 10;
/// Commands at once in the foreground.
const MAX_RUNNING: usize = 64;
/// And in the background: each holds three descriptors and some memory of the agent's.
const MAX_BACKGROUND: usize = 64;
/// The kernel takes at most 128 KiB in one argument, its NUL included.
const MAX_COMMAND: usize = (128 << 10) - 1;
/// Names and values together, per call.
const MAX_ENV: usize = 32 << 10;
/// Longest run, as the contract says.
const MAX_TIMEOUT: u32 = 3600;
/// In the foreground where the caller gives none.
const DEFAULT_TIMEOUT: u32 = 30;

/// Runs shell commands. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shell {
    spawner: Spawner,
    world: Arc<World>,
    running: Arc<Semaphore>,
    background: Arc<Semaphore>,
    jobs: Arc<Registry>,
    count: Arc<AtomicU64>,
}

impl Shell {
    pub(crate) fn new(spawner: Spawner, world: Arc<World>) -> Self {
        Self {
            spawner,
            world,
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
            background: Arc::new(Semaphore::new(MAX_BACKGROUND)),
            jobs: Arc::default(),
            count: Arc::default(),
        }
    }

    /// Runs one command to its end, or starts it in the background. `cwd` has been checked to lie beneath
    /// `/workspace`.
    ///
    /// In a task of its own: when the caller goes away, the command keeps its timeout and is still waited for.
    pub(crate) async fn exec(
        &self,
        request: ShellExecRequest,
        execution_id: Option<String>,
    ) -> Result<ShellExecResponse, Failure> {
        check(&request)?;
        let this = self.clone();
        let work = async move {
            if request.background {
                let process_id = this.start(request, execution_id.clone()).await?;
                return Ok(started(process_id, execution_id));
            }
            let Ok(_permit) = Arc::clone(&this.running).try_acquire_owned() else {
                return Err(Failure::new(Code::Busy, format!("{MAX_RUNNING} commands are running already")));
            };
            let answer = this.run(request).await?;
            Ok(ShellExecResponse { execution_id, ..answer })
        };
        tokio::spawn(work)
            .await
            .unwrap_or_else(|_| Err(Failure::new(Code::RuntimeError, "the command's task was lost")))
    }

    /// Commands that run now, in the foreground and in the background.
    pub(crate) fn at_work(&self) -> (usize, usize) {
        let taken = |all: usize, room: &Semaphore| all.saturating_sub(room.available_permits());
        (taken(MAX_RUNNING, &self.running), taken(MAX_BACKGROUND, &self.background))
    }

    fn next_number(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What the spawner is to start.
    fn command(&self, request: ShellExecRequest) -> Result<Command, Failure> {
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
        Ok(Command { argv, env: self.world.shell_env(&request.env), cwd: cwd.into() })
    }

    async fn run(&self, mut request: ShellExecRequest) -> Result<ShellExecResponse, Failure> {
        let timeout = Duration::from_secs(request.timeout.unwrap_or(DEFAULT_TIMEOUT).into());
        let (stdin, feed) = run::stdin(request.stdin.take())?;
        let (stdout, theirs_out) = capture_pipe()?;
        let (stderr, theirs_err) = capture_pipe()?;
        let command = self.command(request)?;
        let started = Instant::now();
        let process = self.spawner.spawn(command, [stdin, theirs_out, theirs_err]).await.map_err(refused)?;
        let ran = run::follow(process, stdout, stderr, feed, timeout).await;
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
            process_id: background::process_id(self.next_number()),
            execution_id: None,
        })
    }
}

/// The answer while nothing of the end is known.
fn started(process_id: String, execution_id: Option<String>) -> ShellExecResponse {
    ShellExecResponse {
        success: true,
        stdout: String::new(),
        stderr: String::new(),
        exit_code: None,
        signal: None,
        timed_out: false,
        truncated: false,
        execution_time_ms: 0,
        process_id,
        execution_id,
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
    if request.timeout.is_some_and(|timeout| !(1..=MAX_TIMEOUT).contains(&timeout)) {
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

/// Never a socket: bash takes a socket on stdin for a remote login and would read `.bashrc`.
pub(crate) fn dev_null() -> Result<OwnedFd, Failure> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
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
