//! `python`: one kernel, started ahead, asked in order, restarted when it must be.
//!
//! ```text
//! starting ──ready──▶ serving ──killed, died, stuck, restarted──▶ starting (the next kernel_seq)
//!    │ ▲                 └──stopped──▶ waiting ──a call, a restart──▶ starting
//!    │ └── failed three times ─▶ waiting
//!    └──no ipykernel: the same with the built-in interpreter loop
//! ```
//!
//! One task owns the kernel; calls wait in a queue of [`QUEUE`].

mod channel;
mod control;
mod engine;
mod frames;
pub(crate) mod fuzz;
mod interpreter;
mod kernel;
mod late;
mod launch;
mod message;
pub(crate) use message::hex;
mod oom;
mod output;
mod report;
mod zmtp;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bay_ship_api::http::PythonExecRequest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use self::control::{Board, MAX_ORDERS, Order, Wish, state_lost};
pub(crate) use self::control::{State, Status};
use self::engine::Engine;
pub(crate) use self::engine::EngineKind;
use self::kernel::{Ending, StartFailure};
use self::late::Late;
use self::launch::Guard;
use self::oom::OomWatch;
use self::output::{Collector, Gathered};
use self::report::Report;
use crate::agent::error::{Code, Failure};
use crate::execution::Execution;
use crate::log;
use crate::spawner::client::Spawner;
use crate::user::World;

/// Calls that may wait for the kernel, beside the one that runs.
const QUEUE: usize = 16;
/// Starts tried in a row without a call that asks for it.
const EAGER_STARTS: u32 = 3;
/// Longest run, as the contract says.
const MAX_TIMEOUT: u32 = 3600;

struct Job {
    request: PythonExecRequest,
    queued: Instant,
    execution: Arc<Execution>,
}

impl Job {
    /// Whether it is for another kernel than this one.
    fn expects_another(&self, kernel_seq: u64) -> bool {
        self.request.expect_kernel.is_some_and(|wanted| wanted != kernel_seq)
    }

    fn refuse(self, failure: Failure) {
        self.execution.finish(Err(failure));
    }

    /// It was cancelled before its turn came.
    fn never_ran(self, kernel_seq: u64) {
        let report = Report {
            ending: Ending::Complete,
            cancelled: true,
            cause: String::new(),
            next_kernel: kernel_seq,
            timeout: self.request.timeout,
            last_words: String::new(),
            gathered: Gathered::default(),
            queued: self.queued.elapsed(),
            took: Duration::ZERO,
        };
        let mut answer = report.answer(&self.execution, None);
        answer["success"] = false.into();
        answer["error"] = "cancelled before it began; nothing ran".into();
        self.execution.finish(Ok(answer));
    }

    fn refuse_lost(self, kernel_seq: u64) {
        let wanted = self.request.expect_kernel.filter(|wanted| *wanted != kernel_seq);
        self.refuse(state_lost(wanted, kernel_seq));
    }
}

/// The way to the kernel. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Python {
    jobs: mpsc::Sender<Job>,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<Status>,
    late: Late,
}

impl Python {
    /// Begins to start a kernel at once.
    pub(crate) fn start(spawner: Spawner, world: Arc<World>) -> Self {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (orders, wishes) = mpsc::channel(MAX_ORDERS);
        let (board, status) = Board::new();
        let late = Late::default();
        let actor = Actor {
            spawner,
            world,
            inbox,
            orders: wishes,
            board,
            late: late.clone(),
            oom: OomWatch::new(),
            kernel_seq: 1,
            attempts: 0,
            guard: Guard::SafePath,
            kind: EngineKind::IPython,
            first: None,
            awaited: Vec::new(),
        };
        tokio::spawn(actor.run());
        Self { jobs, orders, status, late }
    }

    /// Takes code to be run when its turn comes; that fills and finishes `execution`.
    pub(crate) fn exec(&self, request: PythonExecRequest, execution: &Arc<Execution>) -> Result<(), Failure> {
        if !(1..=MAX_TIMEOUT).contains(&request.timeout) {
            return Err(Failure::field("timeout", format!("must be from 1 to {MAX_TIMEOUT} seconds")));
        }
        let ahead = self.jobs.capacity() < QUEUE;
        match self.status().state {
            State::Starting => execution.status("kernel_starting"),
            State::Ready | State::Failed(_) | State::Stopped if !ahead => {}
            State::Ready | State::Busy(_) | State::Failed(_) | State::Stopped => execution.status("queued"),
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
    orders: mpsc::Receiver<Order>,
    board: Board,
    late: Late,
    oom: OomWatch,
    /// Of the kernel that runs or starts, or of the next one.
    kernel_seq: u64,
    attempts: u64,
    guard: Guard,
    kind: EngineKind,
    /// The call that made the kernel start; served before all others.
    first: Option<Job>,
    /// Restarts that wait for the kernel that is being started. At most one for each connection.
    awaited: Vec<oneshot::Sender<Result<(), Failure>>>,
}

/// What the actor does next.
enum Next {
    Start,
    Serve(Engine),
    /// Until somebody wants something; with the reason why the last start failed, where it did.
    Wait(Option<String>),
    /// Nobody can want anything any more.
    Over,
}

impl Actor {
    async fn run(mut self) {
        let mut next = Next::Start;
        loop {
            next = match next {
                Next::Start => self.start().await,
                Next::Serve(engine) => self.serve(engine).await,
                Next::Wait(failed) => self.wait(failed).await,
                Next::Over => return,
            };
        }
    }

    /// Starts the kernel, some times over where that fails.
    async fn start(&mut self) -> Next {
        let mut failures = 0;
        loop {
            self.board.state(State::Starting);
            self.late.clear();
            self.attempts += 1;
            let failure = match self.try_start().await {
                Ok(Ok(engine)) => {
                    self.board.engine(self.kind);
                    self.board.state(State::Ready);
                    self.awaited.drain(..).for_each(|done| drop(done.send(Ok(()))));
                    return Next::Serve(engine);
                }
                Ok(Err(failure)) => failure,
                Err(next) => return next,
            };
            match failure {
                StartFailure::NoSuchOption if self.guard == Guard::SafePath => self.guard = Guard::Isolated,
                StartFailure::NoIpykernel if self.kind == EngineKind::IPython => {
                    log("agent: this Python has no ipykernel; the built-in interpreter loop takes its place");
                    self.kind = EngineKind::Plain;
                }
                failure => {
                    failures += 1;
                    let why = failure.to_string();
                    log(&format!("agent: the Python kernel did not start: {why}"));
                    if failures >= EAGER_STARTS {
                        return self.give_up(why);
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// One start; an error is what to do instead, where somebody stopped it.
    async fn try_start(&mut self) -> Result<Result<Engine, StartFailure>, Next> {
        let late = self.late.clone();
        let order = {
            let starting =
                Engine::start(self.kind, &self.spawner, &self.world, self.guard, self.attempts, late);
            tokio::pin!(starting);
            loop {
                tokio::select! {
                    biased;
                    order = self.orders.recv() => match order {
                        None => return Err(Next::Over),
                        Some(Order { wish: Wish::Restart, done }) => self.awaited.push(done),
                        Some(order) => break order,
                    },
                    started = &mut starting => return Ok(started),
                }
            }
        };
        // What was being started ends with the block above, or as soon as the spawner says that it exists.
        Err(self.obey(order, "stopped on request while it started"))
    }

    /// Answers those who wait for a start that does not come.
    fn give_up(&mut self, why: String) -> Next {
        let failure = Failure::new(Code::RuntimeError, format!("the Python kernel does not start: {why}"));
        self.awaited.drain(..).for_each(|done| drop(done.send(Err(failure.clone()))));
        if let Some(job) = self.first.take() {
            job.refuse(failure);
        }
        Next::Wait(Some(why))
    }

    /// There is no kernel until somebody wants one.
    async fn wait(&mut self, failed: Option<String>) -> Next {
        self.board.state(failed.clone().map_or(State::Stopped, State::Failed));
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    None => return Next::Over,
                    Some(Order { wish: Wish::Restart, done }) => {
                        self.awaited.push(done);
                        return Next::Start;
                    }
                    Some(Order { wish: Wish::Stop, done }) => {
                        // There is none already.
                        let _ = done.send(Ok(()));
                        return Next::Wait(None);
                    }
                },
                job = self.inbox.recv() => match (job, &failed) {
                    (None, _) => return Next::Over,
                    (Some(job), _) if job.execution.is_cancelled() => job.never_ran(self.kernel_seq),
                    (Some(job), _) if job.expects_another(self.kernel_seq) => job.refuse_lost(self.kernel_seq),
                    (Some(job), Some(why)) => {
                        // Told at once rather than after more starts like the last ones; one is tried all the same.
                        let message = format!("the Python kernel does not start: {why}");
                        job.refuse(Failure::new(Code::RuntimeError, message));
                        return Next::Start;
                    }
                    (Some(job), None) => {
                        self.first = Some(job);
                        return Next::Start;
                    }
                },
            }
        }
    }

    /// Answers calls until the kernel is over.
    async fn serve(&mut self, mut engine: Engine) -> Next {
        loop {
            let job = match self.first.take() {
                Some(job) => job,
                None => tokio::select! {
                    biased;
                    order = self.orders.recv() => return match order {
                        None => Next::Over,
                        Some(order) => {
                            // Ended before the next one is started.
                            drop(engine);
                            self.obey(order, "")
                        }
                    },
                    job = self.inbox.recv() => match job {
                        None => return Next::Over,
                        Some(job) => job,
                    },
                    ending = engine.idle() => {
                        let words = self.ending_words(&ending);
                        log(&format!("agent: the idle Python kernel is over: {words}"));
                        self.lost(format!("{words}, between calls"));
                        return Next::Start;
                    }
                },
            };
            if job.execution.is_cancelled() {
                job.never_ran(self.kernel_seq);
                continue;
            }
            if job.expects_another(self.kernel_seq) {
                job.refuse_lost(self.kernel_seq);
                continue;
            }
            self.board.state(State::Busy(SystemTime::now()));
            if let Some(next) = self.work(&mut engine, job).await {
                return next;
            }
            self.board.state(State::Ready);
        }
    }

    /// Runs one call; returns what comes next where the kernel did not outlive it.
    async fn work(&mut self, engine: &mut Engine, job: Job) -> Option<Next> {
        let Job { request, queued, execution } = job;
        let began = Instant::now();
        self.oom.refresh();
        execution.started(Some(self.kernel_seq));
        let mut collector = Collector::new(Some(Arc::clone(&execution)));
        let limit = Duration::from_secs(request.timeout.into());
        let (ending, order) = tokio::select! {
            biased;
            Some(order) = self.orders.recv() => (Ending::Replaced(order.wish), Some(order)),
            ending = engine.execute(&request.code, limit, &mut collector) => (ending, None),
        };
        // What came last may not be written yet.
        collector.settle().await;
        let over = !matches!(ending, Ending::Complete | Ending::Interrupted);
        let words = self.ending_words(&ending);
        let report = Report {
            cancelled: execution.is_cancelled(),
            cause: words.clone(),
            next_kernel: self.kernel_seq + u64::from(over),
            timeout: request.timeout,
            last_words: if matches!(ending, Ending::Died(_)) {
                engine.last_words().await
            } else {
                String::new()
            },
            ending,
            gathered: collector.finish(),
            queued: began - queued,
            took: began.elapsed(),
        };
        execution.finish(Ok(report.answer(&execution, request.include_code.then_some(request.code))));
        match order {
            Some(order) => Some(self.obey(order, &words)),
            None if over => {
                self.lost(words);
                Some(Next::Start)
            }
            None => None,
        }
    }

    /// The kernel is over, and what waits for its state with it.
    fn obey(&mut self, Order { wish, done }: Order, words: &str) -> Next {
        let plain = match wish {
            Wish::Restart => "restarted on request",
            Wish::Stop => "stopped on request",
        };
        self.lost(if words.is_empty() { plain } else { words }.to_owned());
        let waiting = std::iter::from_fn(|| self.inbox.try_recv().ok());
        self.first.take().into_iter().chain(waiting).for_each(|job| job.refuse_lost(self.kernel_seq));
        match wish {
            Wish::Restart => {
                self.awaited.push(done);
                Next::Start
            }
            Wish::Stop => {
                let stopped = Failure::new(Code::Conflict, "the kernel was stopped while it started");
                self.awaited.drain(..).for_each(|done| drop(done.send(Err(stopped.clone()))));
                self.board.state(State::Stopped);
                let _ = done.send(Ok(()));
                Next::Wait(None)
            }
        }
    }

    fn lost(&mut self, words: String) {
        self.kernel_seq += 1;
        self.board.over(self.kernel_seq, words);
    }

    /// How an execution, or an idle kernel, ended.
    fn ending_words(&self, ending: &Ending) -> String {
        match ending {
            Ending::Complete => "complete".to_owned(),
            Ending::Interrupted => "interrupted".to_owned(),
            Ending::Stuck => "killed: it ignored an interrupt for 5 s".to_owned(),
            Ending::Died(end) => self.oom.words(*end),
            Ending::Broken(why) => format!("killed: {why}"),
            Ending::Left => "ended by its own code".to_owned(),
            Ending::Replaced(Wish::Restart) => "restarted on request while code ran".to_owned(),
            Ending::Replaced(Wish::Stop) => "stopped on request while code ran".to_owned(),
        }
    }
}
