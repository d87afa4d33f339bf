//! One IPython kernel: started, connected, asked, and seen to its end.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bay_ship_api::WORKSPACE;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::channel::{Channel, Kind};
use super::message::{Outgoing, Signer, hex};
use super::output::Collector;
use crate::agent::error::Failure;
use crate::init::RUN_USER_DIR;
use crate::shell::{capture_pipe, dev_null, refused};
use crate::spawner::client::{Command, Process, Spawner};
use crate::spawner::protocol::End;
use crate::user::World;

/// From spawn to ready.
const START: Duration = Duration::from_secs(60);
/// How long an interrupt may be ignored.
const INTERRUPT_GRACE: Duration = Duration::from_secs(5);
/// How long iopub may be silent after the reply, before what is missing counts as lost (a PUB socket drops
/// messages rather than wait for a slow reader).
const IDLE_GRACE: Duration = Duration::from_secs(2);
/// How long the kernel may take to accept a request: its I/O thread does that whatever Python is busy with.
const SEND: Duration = Duration::from_secs(10);
/// What an interpreter says on its own stderr is kept to this, from the end.
const TAIL: usize = 4096;

/// How the interpreter is kept from reading the working directory and the user's site before it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// Python 3.11 and newer.
    SafePath,
    /// Older ones: isolated altogether.
    Isolated,
}

/// Why there is no kernel.
#[derive(Debug)]
pub(super) enum StartFailure {
    /// The interpreter has no ipykernel: trying again does not help.
    NoIpykernel,
    /// The interpreter does not know the guard's option.
    NoSuchOption,
    /// Anything else, in words.
    Other(String),
}

impl From<Failure> for StartFailure {
    fn from(failure: Failure) -> Self {
        Self::Other(failure.message)
    }
}

impl From<std::io::Error> for StartFailure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

/// How an execution ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With reply and idle.
    Complete,
    /// The same, after its timeout and an interrupt.
    Interrupted,
    /// It ignored the interrupt.
    Stuck,
    /// The kernel's process ended.
    Died(End),
    /// The kernel's socket broke or did not take the request.
    Broken(String),
}

pub(super) struct Kernel {
    process: Process,
    shell: Channel,
    iopub: Channel,
    signer: Signer,
    session: String,
    count: u64,
    said: Tail,
}

impl Kernel {
    /// Starts the interpreter and waits until it answers.
    pub(super) async fn start(
        spawner: &Spawner,
        world: &World,
        guard: Guard,
        attempt: u64,
    ) -> Result<Self, StartFailure> {
        let python = world.python.as_deref().ok_or(StartFailure::NoIpykernel)?;
        let private = format!("{RUN_USER_DIR}/kernel-{attempt}");
        let key = random_hex()?;
        let sockets = Sockets::prepare(&private, &key)?;
        let (output, theirs) = capture_pipe()?;
        let command = Command {
            argv: arguments(python, guard, &sockets.connection_file),
            env: world.kernel_env(&private),
            cwd: private.clone().into(),
        };
        let mut process =
            spawner.spawn(command, [dev_null()?, dev_null()?, theirs]).await.map_err(refused)?;
        let said = Tail::follow(output);
        let signer = Signer::new(&key);
        let connecting = async {
            // Before the first request, so that nothing published is missed.
            let iopub = Channel::connect(&sockets.iopub, Kind::Sub, signer.clone()).await?;
            let shell = Channel::connect(&sockets.shell, Kind::Dealer, signer.clone()).await?;
            Ok::<_, std::io::Error>((shell, iopub))
        };
        let connected = tokio::select! {
            connected = connecting => connected.map_err(StartFailure::from),
            end = process.wait() => Err(said.explain(end).await),
            () = sleep(START) => Err(StartFailure::Other(format!("not ready after {} s", START.as_secs()))),
        };
        let (shell, iopub) = match connected {
            Ok(both) => both,
            Err(failure) => {
                process.kill_everything();
                return Err(failure);
            }
        };
        let mut kernel = Self { process, shell, iopub, signer, session: random_hex()?, count: 0, said };
        match kernel.become_ready(world).await {
            Ok(()) => Ok(kernel),
            Err(failure) => {
                kernel.end();
                Err(failure)
            }
        }
    }

    /// A round trip that proves both sockets, then what had to wait until nothing in the locker can interfere.
    async fn become_ready(&mut self, world: &World) -> Result<(), StartFailure> {
        let until = Instant::now() + START;
        let mut heard = false;
        // The first answer can come before the subscription took effect; then a second one is asked for.
        while !heard {
            let mut collector = Collector::new();
            let ending =
                self.request("kernel_info_request", &json!({}), &mut collector, until, Duration::ZERO).await;
            match ending {
                Ending::Complete => heard = collector.idle,
                Ending::Died(end) => return Err(self.said.explain(end).await),
                other => return Err(StartFailure::Other(format!("the kernel did not answer: {other:?}"))),
            }
        }
        let code = ready_code(&world.withheld());
        let content = json!({
            "code": code, "silent": true, "store_history": false, "user_expressions": {},
            "allow_stdin": false, "stop_on_error": false,
        });
        let mut collector = Collector::new();
        match self.request("execute_request", &content, &mut collector, until, Duration::ZERO).await {
            Ending::Complete => match collector.finish().error {
                None => Ok(()),
                Some(error) => Err(StartFailure::Other(format!("{}: {}", error.name, error.value))),
            },
            Ending::Died(end) => Err(self.said.explain(end).await),
            other => Err(StartFailure::Other(format!("the kernel did not become ready: {other:?}"))),
        }
    }

    /// Runs code. `collector` has whatever it said, however it ended.
    pub(super) async fn execute(&mut self, code: &str, limit: Duration, collector: &mut Collector) -> Ending {
        let content = json!({
            "code": code, "silent": false, "store_history": true, "user_expressions": {},
            "allow_stdin": false, "stop_on_error": false,
        });
        let ending = self
            .request("execute_request", &content, collector, Instant::now() + limit, INTERRUPT_GRACE)
            .await;
        if matches!(ending, Ending::Died(_)) {
            // What it said last may still lie in the socket. Bounded: the writer is gone.
            while let Some(message) = self.iopub.next_now() {
                if message.parent == self.id() {
                    collector.iopub(&message);
                }
            }
        }
        ending
    }

    fn id(&self) -> String {
        format!("{}-{}", self.session, self.count)
    }

    /// Sends a request and follows it until both reply and idle are there. At `until` the kernel is interrupted;
    /// after `grace` more it counts as stuck.
    async fn request(
        &mut self,
        kind: &str,
        content: &Value,
        collector: &mut Collector,
        until: Instant,
        grace: Duration,
    ) -> Ending {
        self.count += 1;
        let id = self.id();
        let message = Outgoing { id: &id, session: &self.session, kind, content }.encode(&self.signer);
        let mut interrupted = false;
        let mut replied = false;
        let mut until = until;
        // A large request takes more than one write; what the kernel says meanwhile waits in its own queue.
        match timeout(SEND, self.shell.send(&message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return self.broken(&error).await,
            Err(_) => return Ending::Broken("it did not take the request".into()),
        }
        loop {
            tokio::select! {
                message = self.iopub.next() => match message {
                    Ok(message) if message.parent == id => {
                        collector.iopub(&message);
                        if replied {
                            until = Instant::now() + IDLE_GRACE;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => return self.broken(&error).await,
                },
                message = self.shell.next() => match message {
                    Ok(message) if message.parent == id => {
                        collector.reply(&message);
                        replied = true;
                        until = Instant::now() + IDLE_GRACE;
                    }
                    Ok(_) => {}
                    Err(error) => return self.broken(&error).await,
                },
                end = self.process.wait() => return Ending::Died(end),
                () = sleep_until(until) => {
                    if replied {
                        collector.lost();
                        return if interrupted { Ending::Interrupted } else { Ending::Complete };
                    }
                    if interrupted || grace.is_zero() {
                        return Ending::Stuck;
                    }
                    interrupted = true;
                    self.process.signal(libc::SIGINT);
                    until = Instant::now() + grace;
                }
            }
            if replied && collector.idle {
                return if interrupted { Ending::Interrupted } else { Ending::Complete };
            }
        }
    }

    /// A broken socket is most often a kernel that is ending: the exit says more.
    async fn broken(&mut self, error: &std::io::Error) -> Ending {
        match timeout(Duration::from_secs(1), self.process.wait()).await {
            Ok(end) => Ending::Died(end),
            Err(_) => Ending::Broken(error.to_string()),
        }
    }

    /// Reads and drops what the kernel says between executions. Returns when it has ended or cannot be used.
    pub(super) async fn idle(&mut self) -> Ending {
        loop {
            let failed = tokio::select! {
                message = self.iopub.next() => message.err(),
                message = self.shell.next() => message.err(),
                end = self.process.wait() => return Ending::Died(end),
            };
            if let Some(error) = failed {
                return self.broken(&error).await;
            }
        }
    }

    /// What the interpreter itself said last, outside any execution: why it crashed, if it knew.
    pub(super) async fn last_words(&self) -> String {
        self.said.take().await
    }

    /// Ends it and all it started.
    pub(super) fn end(self) {
        self.process.kill_everything();
    }
}

/// For a person.
pub(super) fn end_words(end: End) -> String {
    match end {
        End::Code(code) => format!("exit status {code}"),
        End::Signal(signal) => format!("signal {}", crate::shell::signal_name(signal)),
    }
}

struct Sockets {
    connection_file: String,
    shell: PathBuf,
    iopub: PathBuf,
}

impl Sockets {
    /// Makes the kernel's own directory, with the connection file in it.
    fn prepare(private: &str, key: &str) -> Result<Self, StartFailure> {
        let connection_file = format!("{private}/connection.json");
        let failed = |error: rustix::io::Errno| StartFailure::Other(format!("{private}: {error}"));
        rustix::fs::mkdir(private, Mode::from_raw_mode(0o700)).map_err(failed)?;
        let base = format!("{private}/s");
        let content = json!({
            "transport": "ipc", "ip": base, "shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4,
            "hb_port": 5, "key": key, "signature_scheme": "hmac-sha256", "kernel_name": "python3",
        });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: OwnedFd =
            rustix::fs::open(&connection_file, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        std::io::Write::write_all(&mut std::fs::File::from(file), content.to_string().as_bytes())?;
        Ok(Self { connection_file, shell: format!("{base}-1").into(), iopub: format!("{base}-2").into() })
    }
}

fn arguments(python: &str, guard: Guard, connection_file: &str) -> Vec<Vec<u8>> {
    let guard: &[&str] = match guard {
        Guard::SafePath => &["-P", "-s"],
        Guard::Isolated => &["-I"],
    };
    let module = ["-m", "ipykernel_launcher", "-f", connection_file];
    // No working directory on the path, no start-up file, no history database to open and write to.
    let settings = [
        "--InteractiveShellApp.ignore_cwd=True",
        "--InteractiveShellApp.exec_PYTHONSTARTUP=False",
        "--HistoryManager.enabled=False",
    ];
    let all = [python].into_iter().chain(guard.iter().copied()).chain(module).chain(settings);
    all.map(|argument| argument.as_bytes().to_vec()).collect()
}

/// What the kernel does once nothing in the locker can interfere any more: go to the workspace, let it be
/// imported from (last of all), and take over the variables that were kept back. Leaves no name behind.
fn ready_code(withheld: &std::collections::BTreeMap<&str, &str>) -> String {
    // A JSON string is a Python string literal, so nothing a user chose can end it.
    let env = Value::String(json!(withheld).to_string()).to_string();
    let program = format!(
        "import json, os, sys\n\
         os.chdir({workspace:?})\n\
         env = json.loads({env})\n\
         os.environ.update(env)\n\
         sys.path.extend(p for p in env.get('PYTHONPATH', '').split(':') if p and p not in sys.path)\n\
         sys.path.append({workspace:?})\n",
        workspace = WORKSPACE,
    );
    format!("exec({}, {{}})", Value::String(program))
}

fn random_hex() -> Result<String, StartFailure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StartFailure::Other(error.to_string()))?;
    Ok(hex(&bytes))
}

/// The end of what the interpreter writes to its own stderr, which IPython replaces once it runs. (Its own stdout
/// has only advice for people at a terminal.)
struct Tail {
    text: Arc<Mutex<Vec<u8>>>,
    reading: Mutex<Option<JoinHandle<()>>>,
}

impl Tail {
    fn follow(mut pipe: pipe::Receiver) -> Self {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let into = Arc::clone(&text);
        let reading = tokio::spawn(async move {
            let mut chunk = [0u8; 1024];
            while let Ok(count) = pipe.read(&mut chunk).await {
                if count == 0 {
                    return;
                }
                let mut text = into.lock().unwrap_or_else(PoisonError::into_inner);
                text.extend_from_slice(&chunk[..count]);
                let excess = text.len().saturating_sub(TAIL);
                text.drain(..excess);
            }
        });
        Self { text, reading: Mutex::new(Some(reading)) }
    }

    /// Waits a moment for the rest, then returns it.
    async fn take(&self) -> String {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reading) = reading {
            let _ = timeout(Duration::from_millis(100), reading).await;
        }
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// Why an interpreter ended before it was ready.
    async fn explain(&self, end: End) -> StartFailure {
        let text = self.take().await;
        if text.contains("No module named ipykernel") {
            StartFailure::NoIpykernel
        } else if text.to_ascii_lowercase().contains("unknown option: -p") {
            StartFailure::NoSuchOption
        } else {
            StartFailure::Other(format!("the interpreter ended with {}: {text}", end_words(end)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_literal() {
        let nasty = "'\"\"\"\\\n}); import os #\u{2028}é";
        let code = ready_code(&[("PYTHONX", nasty)].into_iter().collect());
        assert_eq!(code.lines().count(), 1);
        // Undo both layers the way Python would.
        let literal = code.strip_prefix("exec(").and_then(|c| c.strip_suffix(", {})")).unwrap();
        let program: String = serde_json::from_str(literal).unwrap();
        let line = program.lines().find(|line| line.starts_with("env = ")).unwrap();
        let inner = line.strip_prefix("env = json.loads(").and_then(|l| l.strip_suffix(')')).unwrap();
        let env: Value = serde_json::from_str(&serde_json::from_str::<String>(inner).unwrap()).unwrap();
        assert_eq!(env["PYTHONX"], nasty);
    }

    #[test]
    fn nothing_in_the_arguments_comes_from_the_working_directory() {
        let all: Vec<String> = arguments("/p/python3", Guard::SafePath, "/run/c.json")
            .into_iter()
            .map(|a| String::from_utf8(a).unwrap())
            .collect();
        assert_eq!(all[..6], ["/p/python3", "-P", "-s", "-m", "ipykernel_launcher", "-f"]);
    }
}
