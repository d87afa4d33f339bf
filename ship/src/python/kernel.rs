//! One IPython kernel: started, connected, asked, and seen to its end.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::channel::{Channel, Kind};
use super::control::Wish;
use super::engine::Leash;
use super::late::Late;
use super::launch::{Guard, Sockets, Tail, arguments, random_hex, ready_code};
use super::message::{Incoming, Outgoing, Signer};
use super::output::{Collector, text_of};
use crate::agent::error::Failure;
use crate::init::RUN_USER_DIR;
use crate::shell::{capture_pipe, dev_null, refused};
use crate::spawner::client::{Command, Process, Spawner};
use crate::spawner::protocol::End;
use crate::user::World;

/// From spawn to ready.
pub(super) const START: Duration = Duration::from_secs(60);
/// How long an interrupt may be ignored.
pub(super) const INTERRUPT_GRACE: Duration = Duration::from_secs(5);
/// How long iopub may be silent after the reply, before what is missing counts as lost (a PUB socket drops
/// messages rather than wait for a slow reader).
const IDLE_GRACE: Duration = Duration::from_secs(2);
/// How long the kernel may take to accept a request: its I/O thread does that whatever Python is busy with.
pub(super) const SEND: Duration = Duration::from_secs(10);

/// Run once before any code of the user's.
const PREPARE: &str = include_str!("prepare.py");

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

impl std::fmt::Display for StartFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoIpykernel => f.write_str("no ipykernel"),
            Self::NoSuchOption => f.write_str("the interpreter knows none of the options it is guarded with"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// An interrupt on its way to the code. Until the code has begun nothing hears it, so it is sent until then, and once
/// more.
#[derive(Default)]
pub(super) struct Interrupt {
    again: Option<Instant>,
}

impl Interrupt {
    /// Between two.
    const EVERY: Duration = Duration::from_millis(300);

    /// Sends one; it is the last where the code has begun.
    pub(super) fn send(&mut self, process: &Process, collector: &Collector) {
        process.signal(libc::SIGINT);
        self.again = (!collector.begun).then(|| Instant::now() + Self::EVERY);
    }

    /// Returns when the next is due; never where none is.
    pub(super) async fn due(&self) {
        match self.again {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
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
    /// The code asked its kernel to end.
    Left,
    /// Somebody asked for another kernel, or for none, while the code ran.
    Replaced(Wish),
}

pub(super) struct Kernel {
    process: Leash,
    shell: Channel,
    iopub: Channel,
    signer: Signer,
    session: String,
    count: u64,
    /// What `count` was before the first code of the user's.
    ready_at: u64,
    said: Tail,
    late: Late,
}

impl Kernel {
    /// Starts the interpreter and waits until it answers. When the future is dropped, what it started is ended.
    pub(super) async fn start(
        spawner: &Spawner,
        world: &World,
        guard: Guard,
        attempt: u64,
        late: Late,
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
        let process = spawner.spawn(command, [dev_null()?, dev_null()?, theirs]).await.map_err(refused)?;
        let mut process = Leash(process);
        let said = Tail::follow(output);
        // A start that user code stopped would otherwise hold all calls for the whole of its time.
        let _going = process.keep_going();
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
        let (shell, iopub) = connected?;
        let session = random_hex()?;
        let mut kernel = Self { process, shell, iopub, signer, session, count: 0, ready_at: 0, said, late };
        kernel.become_ready(world).await?;
        kernel.ready_at = kernel.count;
        Ok(kernel)
    }

    /// A round trip that proves both sockets, then what had to wait until nothing in the locker can interfere.
    async fn become_ready(&mut self, world: &World) -> Result<(), StartFailure> {
        let until = Instant::now() + START;
        let mut heard = false;
        // The first answer can come before the subscription took effect; then a second one is asked for.
        while !heard {
            let mut collector = Collector::new(None);
            let ending =
                self.request("kernel_info_request", &json!({}), &mut collector, until, Duration::ZERO).await;
            match ending {
                Ending::Complete => heard = collector.idle,
                Ending::Died(end) => return Err(self.said.explain(end).await),
                other => return Err(StartFailure::Other(format!("the kernel did not answer: {other:?}"))),
            }
        }
        let prepare = serde_json::Value::String(PREPARE.to_owned());
        let code = format!("{}\nexec({prepare}, {{}})", ready_code(&world.withheld()));
        let content = json!({
            "code": code, "silent": true, "store_history": false, "user_expressions": {},
            "allow_stdin": false, "stop_on_error": false,
        });
        let mut collector = Collector::new(None);
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
                    collector.settle().await;
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
        let mut again = Interrupt::default();
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
                        collector.settle().await;
                        if replied {
                            until = Instant::now() + IDLE_GRACE;
                        }
                    }
                    Ok(message) => self.outside(&message),
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
                () = collector.cancellation(), if !interrupted && !replied => {
                    interrupted = true;
                    again.send(&self.process, collector);
                    until = Instant::now() + grace;
                }
                () = again.due(), if !replied => again.send(&self.process, collector),
                () = sleep_until(until) => {
                    if replied {
                        collector.lost();
                        return if interrupted { Ending::Interrupted } else { Ending::Complete };
                    }
                    if interrupted || grace.is_zero() {
                        return Ending::Stuck;
                    }
                    interrupted = true;
                    again.send(&self.process, collector);
                    until = Instant::now() + grace;
                }
            }
            if replied && collector.idle {
                return match (collector.leaving, interrupted) {
                    (true, _) => Ending::Left,
                    (false, true) => Ending::Interrupted,
                    (false, false) => Ending::Complete,
                };
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

    /// Takes a message that belongs to no execution under way. What the kernel itself said while it started is not
    /// of interest.
    fn outside(&self, message: &Incoming) {
        let number = message.parent.strip_prefix(&self.session).and_then(|rest| rest.strip_prefix('-'));
        let of_user = number.and_then(|number| number.parse::<u64>().ok()).is_some_and(|n| n > self.ready_at);
        if let Some(text) = text_of(message).filter(|_| of_user) {
            self.late.push(&text);
        }
    }

    /// Reads what the kernel says between executions. Returns when it has ended or cannot be used.
    pub(super) async fn idle(&mut self) -> Ending {
        loop {
            let failed = tokio::select! {
                message = self.iopub.next() => match message {
                    Ok(message) => {
                        self.outside(&message);
                        None
                    }
                    Err(error) => Some(error),
                },
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
}

/// For a person.
pub(super) fn end_words(end: End) -> String {
    match end {
        End::Code(code) => format!("exit status {code}"),
        End::Signal(signal) => format!("signal {}", crate::shell::signal_name(signal)),
    }
}
