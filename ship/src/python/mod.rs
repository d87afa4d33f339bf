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

use bay_ship_api::http::{PythonData, PythonExecRequest, PythonExecResponse, PythonOutput};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use self::kernel::{Ending, Kernel, StartFailure, end_words};
use self::launch::Guard;
use self::output::{Collector, Gathered};
use crate::agent::error::{Code, Failure};
use crate::execution::Execution;
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

struct Job {
    request: PythonExecRequest,
    queued: Instant,
    execution: Arc<Execution>,
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

    /// Takes code to be run when its turn comes; that fills and finishes `execution`.
    pub(crate) fn exec(&self, request: PythonExecRequest, execution: &Arc<Execution>) -> Result<(), Failure> {
        if !(1..=MAX_TIMEOUT).contains(&request.timeout) {
            return Err(Failure::field("timeout", format!("must be from 1 to {MAX_TIMEOUT} seconds")));
        }
        match (self.status(), self.jobs.capacity() < QUEUE) {
            (Status::Starting, _) => execution.status("kernel_starting"),
            (Status::Ready { .. } | Status::Failed(_) | Status::Unavailable(_), true) => {
                execution.status("queued");
            }
            (Status::Ready { .. } | Status::Failed(_) | Status::Unavailable(_), false) => {}
        }
        let job = Job { request, queued: Instant::now(), execution: Arc::clone(execution) };
        match self.jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(Failure::new(Code::Busy, format!("{QUEUE} calls are waiting for the kernel already")))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
        }
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
        job.execution.finish(Err(Failure::new(Code::RuntimeError, message)));
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
            let Job { request, queued, execution } = job;
            let began = Instant::now();
            if execution.is_cancelled() {
                execution.finish(Ok(never_ran(&execution, self.kernel_seq)));
                continue;
            }
            execution.started(Some(self.kernel_seq));
            let mut collector = Collector::new(Some(Arc::clone(&execution)));
            let limit = Duration::from_secs(request.timeout.into());
            let ending = kernel.execute(&request.code, limit, &mut collector).await;
            let over = !matches!(ending, Ending::Complete | Ending::Interrupted);
            let report = Report {
                ending,
                cancelled: execution.is_cancelled(),
                next_kernel: self.kernel_seq + u64::from(over),
                timeout: request.timeout,
                last_words: if over { kernel.last_words().await } else { String::new() },
                gathered: collector.finish(),
                queued: began - queued,
                took: began.elapsed(),
            };
            execution.finish(Ok(report.answer(&execution, request.include_code.then_some(request.code))));
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
        job.execution.finish(Err(Failure::new(Code::CapabilityNotSupported, why)));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is known when an execution is over.
struct Report {
    ending: Ending,
    /// Somebody asked for it to stop.
    cancelled: bool,
    /// The kernel that the next call meets.
    next_kernel: u64,
    timeout: u32,
    last_words: String,
    gathered: Gathered,
    queued: Duration,
    took: Duration,
}

/// The answer to what was cancelled before its turn came.
fn never_ran(execution: &Execution, kernel_seq: u64) -> Value {
    let report = Report {
        ending: Ending::Complete,
        cancelled: true,
        next_kernel: kernel_seq,
        timeout: 0,
        last_words: String::new(),
        gathered: Gathered::default(),
        queued: Duration::ZERO,
        took: Duration::ZERO,
    };
    let mut answer = report.answer(execution, None);
    answer["success"] = false.into();
    answer["error"] = "cancelled before it began; nothing ran".into();
    answer
}

impl Report {
    fn answer(self, execution: &Execution, code: Option<String>) -> Value {
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
            Ending::Interrupted if self.cancelled => {
                Some("cancelled: the code was interrupted; the kernel keeps its state".to_owned())
            }
            Ending::Interrupted => Some(format!(
                "the code ran longer than its timeout of {seconds} s and was interrupted; the kernel keeps its state"
            )),
            Ending::Stuck if self.cancelled => Some(format!(
                "cancelled: the code ignored the interrupt for 5 s, so the kernel was stopped: {lost}"
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
        let answer = PythonExecResponse {
            success: error.is_none(),
            data: PythonData {
                execution_count,
                output: PythonOutput { text: output.clone(), images, results },
            },
            output,
            error,
            error_detail: detail,
            execution_id: execution.context().id.clone(),
            execution_time_ms: millis(self.took),
            queued_ms: millis(self.queued),
            session_seq: execution.context().session_seq,
            kernel_seq: next,
            timed_out: !self.cancelled && matches!(self.ending, Ending::Interrupted | Ending::Stuck),
            truncated,
            code,
        };
        // Our own type always serialises.
        serde_json::to_value(answer).unwrap_or_default()
    }
}
