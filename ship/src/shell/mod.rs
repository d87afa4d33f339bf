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

use crate::agent::error::{Code, Failure};
use crate::execution::{Execution, Stream};
use crate::spawner::client::{Command, SpawnError, Spawner};
use crate::spawner::protocol::End;
use crate::user::World;
use registry::Registry;
use run::Stopped;

/// From TERM to KILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long the pipes may stay open after the shell itself has ended: a background process may keep them for ever.
const PIPE_GRACE: Duration = Duration::from_millis(50);
/// How long they may after everything was killed.
const KILLED_GRACE: Duration = Duration::from_millis(500);
/// A pipe's size, unless its user made it larger.
const PIPE_CAPACITY: usize = 64 << 10;
/// How much of stderr is repeated as a failed command's `error`: the end says why.
const MAX_ERROR_TAIL: usize = 4096;
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

    /// Begins to run one command, which fills and finishes `execution`: with the command's end, or, for one in the
    /// background, once it has been started. `cwd` has been checked to lie beneath `/workspace`.
    ///
    /// In a task of its own: whether or not the caller stays, the command keeps its timeout and is waited for.
    pub(crate) fn exec(&self, request: ShellExecRequest, execution: &Arc<Execution>) -> Result<(), Failure> {
        check(&request)?;
        let permit = if request.background {
            None
        } else {
            let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() else {
                return Err(Failure::new(Code::Busy, format!("{MAX_RUNNING} commands are running already")));
            };
            Some(permit)
        };
        let (this, execution) = (self.clone(), Arc::clone(execution));
        tokio::spawn(async move {
            let _permit = permit;
            let end = if request.background {
                this.begin(request, &execution).await
            } else {
                this.run(request, &execution).await
            };
            // Our own type always serialises.
            execution.finish(end.map(|answer| serde_json::to_value(answer).unwrap_or_default()));
        });
        Ok(())
    }

    async fn begin(
        &self,
        request: ShellExecRequest,
        execution: &Execution,
    ) -> Result<ShellExecResponse, Failure> {
        let command = request.include_code.then(|| request.command.clone());
        let process_id = self.start(request, Some(execution.context().id.clone())).await?;
        execution.started(None);
        Ok(started(process_id, command, execution))
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
        argv.extend([b"-c".to_vec(), request.command.clone().into_bytes()]);
        let mut cwd = WORKSPACE.to_owned();
        if let Some(sub) = request.cwd.as_deref().filter(|sub| !matches!(*sub, "" | ".")) {
            cwd.push('/');
            cwd.push_str(sub);
        }
        Ok(Command { argv, env: self.world.shell_env(&request.env), cwd: cwd.into() })
    }

    async fn run(
        &self,
        mut request: ShellExecRequest,
        execution: &Arc<Execution>,
    ) -> Result<ShellExecResponse, Failure> {
        let seconds = request.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let timeout = Duration::from_secs(seconds.into());
        let code = request.include_code.then(|| request.command.clone());
        let (stdin, feed) = run::stdin(request.stdin.take())?;
        let (stdout, theirs_out) = capture_pipe()?;
        let (stderr, theirs_err) = capture_pipe()?;
        let command = self.command(request)?;
        let started = Instant::now();
        let process = self.spawner.spawn(command, [stdin, theirs_out, theirs_err]).await.map_err(refused)?;
        execution.started(None);
        let ran = run::follow(process, stdout, stderr, feed, timeout, execution).await;
        let (exit_code, signal) = match ran.end {
            End::Code(code) if ran.stopped.is_none() => (Some(code), None),
            End::Code(_) => (None, None),
            End::Signal(signal) => (None, Some(signal_name(signal))),
        };
        let (stdout, more_out) = execution.inline(Stream::Stdout);
        let (stderr, more_err) = execution.inline(Stream::Stderr);
        let success = exit_code == Some(0);
        Ok(ShellExecResponse {
            success,
            output: [stdout.as_str(), stderr.as_str()].concat(),
            error: (!success).then(|| failed_words(&ran, &stderr, exit_code, seconds)),
            stdout,
            stderr,
            exit_code,
            signal,
            timed_out: ran.stopped == Some(Stopped::Late),
            truncated: more_out || more_err,
            execution_id: execution.context().id.clone(),
            execution_time_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            session_seq: execution.context().session_seq,
            command: code,
            process_id: background::process_id(self.next_number()),
        })
    }
}

/// Why a command failed, in the words nearest to the cause.
fn failed_words(ran: &run::Ran, stderr: &str, exit_code: Option<i32>, timeout: u32) -> String {
    match (ran.stopped, ran.end, exit_code) {
        (Some(Stopped::Late), ..) => format!("timed out after {timeout} s; the process group was ended"),
        (Some(Stopped::Cancelled), ..) => "cancelled; the process group was ended".to_owned(),
        (None, End::Signal(signal), _) => format!("ended by {}", signal_name(signal)),
        (None, End::Code(_), code) => {
            let stderr = stderr.trim();
            if stderr.is_empty() {
                return format!("exit code {}", code.unwrap_or_default());
            }
            stderr[stderr.ceil_char_boundary(stderr.len().saturating_sub(MAX_ERROR_TAIL))..].to_owned()
        }
    }
}

/// The answer while nothing of the end is known.
fn started(process_id: String, command: Option<String>, execution: &Execution) -> ShellExecResponse {
    ShellExecResponse {
        success: true,
        output: String::new(),
        error: None,
        stdout: String::new(),
        stderr: String::new(),
        exit_code: None,
        signal: None,
        timed_out: false,
        truncated: false,
        execution_id: execution.context().id.clone(),
        execution_time_ms: 0,
        session_seq: execution.context().session_seq,
        command,
        process_id,
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
