//! What is known of the kernel, and what can be wished of it: status, restart, stop.
//!
//! A restart ends the kernel and all it started. The call that runs is answered with what it said so far and an
//! error; calls that wait are refused with `state_lost`, since they were made for the state that is gone. A restart
//! that meets a start under way joins it: no code has run in that kernel. A stopped kernel comes back with the next
//! call, or with a restart.

use std::time::{Duration, SystemTime};

use bay_ship_api::http::KernelStatus;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::engine::EngineKind;
use super::{Python, gone};
use crate::agent::error::{Code, Failure};
use crate::text::rfc3339;

/// How long a restart is waited for; the start itself goes on.
const RESTART: Duration = Duration::from_secs(60);
/// Orders that wait for the actor, which takes each at once: callers beyond wait for room.
pub(super) const MAX_ORDERS: usize = 16;

/// What somebody wants instead of the kernel that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Another one.
    Restart,
    /// None.
    Stop,
}

/// A wish, and where to say that it has come true.
pub(super) struct Order {
    pub(super) wish: Wish,
    pub(super) done: oneshot::Sender<Result<(), Failure>>,
}

/// Whether there is a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// One is on its way.
    Starting,
    /// It waits for a call.
    Ready,
    /// It runs one, since then.
    Busy(SystemTime),
    /// The last starts failed; the next call tries again.
    Failed(String),
    /// Somebody stopped it; the next call starts another.
    Stopped,
}

/// All that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) state: State,
    /// `None` until a start has shown which.
    pub(crate) engine: Option<EngineKind>,
    /// Of the kernel that runs or starts; of the next one where none does.
    pub(crate) kernel_seq: u64,
    /// How the one before ended.
    pub(crate) last_exit: Option<String>,
}

impl State {
    /// As the API says it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Busy(_) => "busy",
            Self::Failed(_) => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// The actor's side of the status.
pub(super) struct Board(watch::Sender<Status>);

impl Board {
    pub(super) fn new() -> (Self, watch::Receiver<Status>) {
        let first = Status { state: State::Starting, engine: None, kernel_seq: 1, last_exit: None };
        let (sender, receiver) = watch::channel(first);
        (Self(sender), receiver)
    }

    pub(super) fn state(&self, state: State) {
        self.0.send_modify(|status| status.state = state);
    }

    pub(super) fn engine(&self, kind: EngineKind) {
        self.0.send_modify(|status| status.engine = Some(kind));
    }

    /// The kernel is over, in these words; the next one has the next number.
    pub(super) fn over(&self, kernel_seq: u64, last_exit: String) {
        self.0.send_modify(|status| {
            status.kernel_seq = kernel_seq;
            status.last_exit = Some(last_exit);
        });
    }
}

impl Python {
    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The status as the API gives it.
    pub(crate) fn kernel_status(&self) -> KernelStatus {
        let status = self.status();
        let (mut running_since, mut reason) = (None, None);
        match &status.state {
            State::Busy(since) => running_since = Some(rfc3339(*since)),
            State::Failed(why) => reason = Some(why.clone()),
            State::Starting | State::Ready | State::Stopped => {}
        }
        KernelStatus {
            state: status.state.name().to_owned(),
            engine: status.engine.map(|kind| kind.name().to_owned()),
            kernel_seq: status.kernel_seq,
            queued: self.jobs.max_capacity() - self.jobs.capacity(),
            running_since,
            last_exit: status.last_exit,
            reason,
            late_output: self.late.read(),
        }
    }

    /// Another kernel; returns when it is ready.
    pub(crate) async fn restart(&self) -> Result<KernelStatus, Failure> {
        self.order(Wish::Restart).await
    }

    /// No kernel until the next call.
    pub(crate) async fn stop(&self) -> Result<KernelStatus, Failure> {
        self.order(Wish::Stop).await
    }

    async fn order(&self, wish: Wish) -> Result<KernelStatus, Failure> {
        let (done, answer) = oneshot::channel();
        let asked = async {
            self.orders.send(Order { wish, done }).await.map_err(|mpsc::error::SendError(_)| gone())?;
            answer.await.unwrap_or_else(|_| Err(gone()))
        };
        match timeout(RESTART, asked).await {
            Ok(done) => done.map(|()| self.kernel_status()),
            Err(_) => {
                let seconds = RESTART.as_secs();
                Err(Failure::new(
                    Code::RuntimeError,
                    format!("the new kernel is not ready after {seconds} s; its start goes on"),
                ))
            }
        }
    }
}

/// The refusal of a call whose kernel is gone before its turn came.
pub(super) fn state_lost(wanted: Option<u64>, kernel_seq: u64) -> Failure {
    let mut failure = Failure::new(
        Code::StateLost,
        match wanted {
            Some(wanted) => {
                format!("the kernel with kernel_seq {wanted} is gone (it is {kernel_seq} now); nothing ran")
            }
            None => format!(
                "the kernel was ended on request while the call waited (kernel_seq is {kernel_seq} now); \
                 nothing ran"
            ),
        },
    );
    failure.details = serde_json::json!({"kernel_seq": kernel_seq});
    failure
}
