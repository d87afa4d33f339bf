//! `python`: one IPython kernel, started ahead, asked in order, restarted when it must be.
//!
//! ```text
//! starting ──ready──▶ serving ──killed, died, stuck──▶ starting (the next kernel_seq)
//!    │ ▲
//!    │ └── three failures: tried again with the next call
//!    └──no ipykernel──▶ unavailable
//! ```
//!
//! One task owns the kernel; calls wait in a queue of [`QUEUE`].

mod channel;
pub(crate) mod fuzz;
mod kernel;
mod launch;
mod message;
pub(crate) use message::hex;
mod output;
mod zmtp;

use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::http::{PythonExecRequest, PythonExecResponse};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use self::kernel::{Ending, Kernel, StartFailure, end_words};
use self::launch::Guard;
use self::output::{Collector, Gathered};
use crate::agent::error::{Code, Failure};
use crate::log;
use crate::spawner::client::Spawner;
use crate::user::World;

/// Calls that may wait for the kernel, beside the one that runs.
const QUEUE: usize = 16;
/// Starts tried in a row without a call that asks for it.
const EAGER_STARTS: u32 = 3;
const NO_IPYKERNEL: &str = "this container's Python has no ipykernel";
/// Longest run, as the contract says.
const MAX_TIMEOUT: u32 = 3600;

type Answer = Result<PythonExecResponse, Failure>;

struct Job {
    request: PythonExecRequest,
    queued: Instant,
    reply: oneshot::Sender<Answer>,
}

/// Whether there is a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// One is on its way.
    Starting,
    /// This one answers.
    Ready { kernel_seq: u64 },
    /// The last starts failed; the next call tries again.
    Failed(String),
    /// There never will be one, for this reason.
    Unavailable(&'static str),
}

/// The way to the kernel. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Python {
    jobs: mpsc::Sender<Job>,
    status: watch::Receiver<Status>,
}

impl Python {
    /// Begins to start a kernel at once.
    pub(crate) fn start(spawner: Spawner, world: Arc<World>) -> Self {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (status, watch) = watch::channel(Status::Starting);
        let actor =
            Actor { spawner, world, inbox, status, kernel_seq: 1, attempts: 0, guard: Guard::SafePath };
        tokio::spawn(actor.run());
        Self { jobs, status: watch }
    }

    /// Stands for a kernel that can never be had.
    pub(crate) fn unavailable(why: &'static str) -> Self {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (status, watch) = watch::channel(Status::Unavailable(why));
        tokio::spawn(refuse_all(inbox, status, why));
        Self { jobs, status: watch }
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Runs code when its turn comes.
    pub(crate) async fn exec(&self, request: PythonExecRequest) -> Answer {
        if !(1..=MAX_TIMEOUT).contains(&request.timeout) {
            return Err(Failure::field("timeout", format!("must be from 1 to {MAX_TIMEOUT} seconds")));
        }
        let (reply, answer) = oneshot::channel();
        let job = Job { request, queued: Instant::now(), reply };
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(Failure::new(
                    Code::Busy,
                    format!("{QUEUE} calls are waiting for the kernel already"),
                ));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(gone()),
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> Failure {
    Failure::new(Code::RuntimeError, "the container is ending")
}

struct Actor {
    spawner: Spawner,
    world: Arc<World>,
    inbox: mpsc::Receiver<Job>,
    status: watch::Sender<Status>,
    /// Of the kernel that runs or is being started.
    kernel_seq: u64,
    attempts: u64,
    guard: Guard,
}

impl Actor {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            self.status.send_replace(Status::Starting);
            self.attempts += 1;
            match Kernel::start(&self.spawner, &self.world, self.guard, self.attempts).await {
                Ok(kernel) => {
                    failures = 0;
                    self.status.send_replace(Status::Ready { kernel_seq: self.kernel_seq });
                    if !self.serve(kernel).await {
                        return;
                    }
                    self.kernel_seq += 1;
                }
                Err(StartFailure::NoSuchOption) if self.guard == Guard::SafePath => {
                    self.guard = Guard::Isolated
                }
                Err(StartFailure::NoIpykernel) => {
                    return refuse_all(self.inbox, self.status, NO_IPYKERNEL).await;
                }
                Err(failure) => {
                    failures += 1;
                    if !self.failed(failure, failures).await {
                        return;
                    }
                }
            }
        }
    }

    /// After a start that failed: try again soon, or, after a few, when a call asks. False when nobody can ask.
    async fn failed(&mut self, failure: StartFailure, failures: u32) -> bool {
        let StartFailure::Other(why) = failure else {
            return true;
        };
        log(&format!("agent: the Python kernel did not start: {why}"));
        if failures < EAGER_STARTS {
            sleep(Duration::from_millis(100)).await;
            return true;
        }
        self.status.send_replace(Status::Failed(why.clone()));
        let Some(job) = self.inbox.recv().await else { return false };
        let message = format!("the Python kernel does not start: {why}");
        let _ = job.reply.send(Err(Failure::new(Code::RuntimeError, message)));
        true
    }

    /// Answers calls until the kernel is over. False when nobody will call again.
    async fn serve(&mut self, mut kernel: Kernel) -> bool {
        loop {
            let job = tokio::select! {
                job = self.inbox.recv() => job,
                ending = kernel.idle() => {
                    log(&format!("agent: the idle Python kernel is over: {ending:?}"));
                    kernel.end();
                    return true;
                }
            };
            let Some(job) = job else {
                kernel.end();
                return false;
            };
            if job.reply.is_closed() {
                // Its caller went away while it waited: it never started, and now never will.
                continue;
            }
            let began = Instant::now();
            let mut collector = Collector::new();
            let limit = Duration::from_secs(job.request.timeout.into());
            let ending = kernel.execute(&job.request.code, limit, &mut collector).await;
            let over = !matches!(ending, Ending::Complete | Ending::Interrupted);
            let mut answer = Report {
                ending,
                next_kernel: self.kernel_seq + u64::from(over),
                timeout: job.request.timeout,
                last_words: if over { kernel.last_words().await } else { String::new() },
                gathered: collector.finish(),
            }
            .answer();
            answer.queued_ms = millis(began - job.queued);
            answer.execution_time_ms = millis(began.elapsed());
            let _ = job.reply.send(Ok(answer));
            if over {
                kernel.end();
                return true;
            }
        }
    }
}

/// Answers every call with the reason why there is no Python.
async fn refuse_all(mut inbox: mpsc::Receiver<Job>, status: watch::Sender<Status>, why: &'static str) {
    log(&format!("agent: {why}"));
    status.send_replace(Status::Unavailable(why));
    while let Some(job) = inbox.recv().await {
        let _ = job.reply.send(Err(Failure::new(Code::CapabilityNotSupported, why)));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is known when an execution is over.
struct Report {
    ending: Ending,
    /// The kernel that the next call meets.
    next_kernel: u64,
    timeout: u32,
    last_words: String,
    gathered: Gathered,
}

impl Report {
    fn answer(self) -> PythonExecResponse {
        let Gathered { output, images, results, error: detail, execution_count, truncated } = self.gathered;
        let (seconds, next) = (self.timeout, self.next_kernel);
        let lost = format!("a new kernel takes its place (kernel_seq {next}), and variables are lost");
        let error = match &self.ending {
            Ending::Complete => detail.as_ref().map(|detail| {
                if detail.traceback.is_empty() {
                    format!("{}: {}", detail.name, detail.value)
                } else {
                    detail.traceback.join("\n")
                }
            }),
            Ending::Interrupted => Some(format!(
                "the code ran longer than its timeout of {seconds} s and was interrupted; the kernel keeps its state"
            )),
            Ending::Stuck => Some(format!(
                "the code ran longer than its timeout of {seconds} s and ignored the interrupt for 5 s, so the \
                 kernel was stopped: {lost}"
            )),
            Ending::Died(end) => {
                let words = end_words(*end);
                let said = if self.last_words.is_empty() { "" } else { "\n" };
                Some(format!("the kernel died while the code ran ({words}): {lost}{said}{}", self.last_words))
            }
            Ending::Broken(why) => Some(format!("the kernel could not be used any more ({why}): {lost}")),
        };
        PythonExecResponse {
            success: error.is_none(),
            execution_count,
            output,
            error,
            error_detail: detail,
            images,
            results,
            kernel_seq: next,
            timed_out: matches!(self.ending, Ending::Interrupted | Ending::Stuck),
            truncated,
            execution_time_ms: 0,
            queued_ms: 0,
        }
    }
}
