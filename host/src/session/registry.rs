//! Finds the task of a session, or makes it. Everyone else speaks to sessions through here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::adopt::stop_unsettled;
use super::env::SessionEnv;
use super::live::{Activity, Checked, Lease, Live, View};
use super::state::Phase;
use super::task::{self, Command};
use super::unfinished::{Unfinished, not_settled};
use crate::error::{ApiError, Code};
use crate::locker::LockerUsage;
use crate::store::{SandboxRow, SessionRow, Transition};
use crate::time::now_ms;

/// Commands that may wait for one session's task: starts are shared, so more than a few mean that it hangs.
const COMMANDS: usize = 256;

/// Why no session could be had.
#[derive(Debug)]
pub enum SessionError {
    /// The start goes on; ask again.
    StillStarting,
    /// The start failed, or the session was stopped meanwhile.
    Failed(ApiError),
    /// Too many commands wait for this session.
    Overloaded,
}

/// How callers reach one task.
struct Handle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<View>,
    activity: Arc<Activity>,
}

/// Every session that has a task, and what is left of those that have none.
pub struct Sessions {
    env: Arc<SessionEnv>,
    tasks: Mutex<HashMap<String, Handle>>,
    unfinished: Arc<Unfinished>,
    usage: Arc<LockerUsage>,
}

impl Sessions {
    /// None yet.
    pub fn new(env: Arc<SessionEnv>) -> Arc<Self> {
        let unfinished = Arc::new(Unfinished::new());
        let usage = Arc::new(LockerUsage::default());
        Arc::new(Self { env, tasks: Mutex::new(HashMap::new()), unfinished, usage })
    }

    /// What is known of how much lockers hold.
    pub fn usage(&self) -> &Arc<LockerUsage> {
        &self.usage
    }

    /// Whether what an earlier Bay left has been gone through: until then its sandboxes answer 503.
    pub fn recovered(&self) -> bool {
        self.unfinished.has_passed()
    }

    /// How many sandboxes are not known to run or to be gone.
    pub fn unsettled(&self) -> usize {
        self.unfinished.all_unsettled().len()
    }

    pub(super) fn unfinished(&self) -> &Arc<Unfinished> {
        &self.unfinished
    }

    /// Whether a task looks after this sandbox's session.
    pub(super) fn has_task(&self, sandbox_id: &str) -> bool {
        self.tasks().contains_key(sandbox_id)
    }

    /// How many sessions that have a task are in each phase.
    pub fn phases(&self) -> [(Phase, usize); 6] {
        let mut counts = Phase::ALL.map(|phase| (phase, 0));
        for handle in self.tasks().values() {
            let phase = handle.view.borrow().phase;
            for (_, count) in counts.iter_mut().filter(|(of, _)| *of == phase) {
                *count += 1;
            }
        }
        counts
    }

    /// What sessions work with.
    pub fn env(&self) -> &Arc<SessionEnv> {
        &self.env
    }

    /// What its task last published; idle where there is none.
    pub fn view(&self, sandbox_id: &str) -> View {
        let view = self.tasks().get(sandbox_id).map_or_else(View::idle, |h| h.view.borrow().clone());
        let paused = view.live.as_ref().is_some_and(|l| l.containers.iter().any(|c| c.client.is_paused()));
        // Known without asking, and sooner than by a probe that nobody answers.
        if paused { View { checked: Some(Checked { healthy: false, at: now_ms() }), ..view } } else { view }
    }

    /// When its session was last used, if it has one.
    pub fn last_used(&self, sandbox_id: &str) -> Option<i64> {
        self.tasks().get(sandbox_id).map(|h| h.activity.last_used())
    }

    /// Pushes the idle deadline of a running session.
    pub fn touch(&self, sandbox_id: &str) {
        if let Some(handle) = self.tasks().get(sandbox_id) {
            handle.activity.touch();
        }
    }

    /// A ready session: any number of callers, one start. Each waits its own `budget`; the start goes on.
    pub async fn ensure_running(
        self: &Arc<Self>,
        sandbox: &SandboxRow,
        budget: Duration,
    ) -> Result<Lease, SessionError> {
        if let Some(lease) = self.ready(&sandbox.id) {
            return Ok(lease);
        }
        let (reply, answer) = oneshot::channel();
        let activity = self.start(sandbox, Some(reply))?;
        match tokio::time::timeout(budget, answer).await {
            Err(_) => Err(SessionError::StillStarting),
            Ok(Err(_)) => Err(SessionError::Failed(task::stopped_meanwhile())),
            Ok(Ok(Err(error))) => Err(SessionError::Failed(error)),
            Ok(Ok(Ok(live))) => Ok(Lease::new(live, activity)),
        }
    }

    /// Makes sure that a start is under way, and waits for nothing.
    pub fn start_in_background(self: &Arc<Self>, sandbox: &SandboxRow) {
        if self.ready(&sandbox.id).is_none() {
            // Over the bound only while many starts of this sandbox wait already.
            let _under_way = self.start(sandbox, None);
        }
    }

    /// The sandbox's expiry or idle time was changed: a running session is to end by the new ones.
    pub fn refresh(&self, sandbox_id: &str) {
        if let Some(handle) = self.tasks().get(sandbox_id) {
            // Over the bound the task looks again before it ends anything, and expiry has the background, too.
            let _full = handle.commands.try_send(Command::Refresh);
        }
    }

    /// Whether a call is in flight in its session.
    pub fn is_in_use(&self, sandbox_id: &str) -> bool {
        self.tasks().get(sandbox_id).is_some_and(|h| h.activity.is_in_use())
    }

    /// As [`Sessions::refresh`], of all.
    pub fn refresh_all(&self) {
        for handle in self.tasks().values() {
            let _full = handle.commands.try_send(Command::Refresh);
        }
    }

    /// The session that is ready now, if one is; starts nothing.
    pub fn ready(&self, sandbox_id: &str) -> Option<Lease> {
        let tasks = self.tasks();
        let handle = tasks.get(sandbox_id)?;
        let view = handle.view.borrow();
        let live = view.live.as_ref().filter(|_| view.phase == Phase::Ready)?;
        Some(Lease::new(Arc::clone(live), Arc::clone(&handle.activity)))
    }

    fn start(
        self: &Arc<Self>,
        sandbox: &SandboxRow,
        reply: Option<oneshot::Sender<Result<Arc<Live>, ApiError>>>,
    ) -> Result<Arc<Activity>, SessionError> {
        if self.unfinished.is_unsettled(&sandbox.id) {
            // A session of it may run: whether it does must be known before another starts.
            return Err(SessionError::Failed(not_settled()));
        }
        let mut tasks = self.tasks();
        let handle = self.handle(&mut tasks, sandbox, View::idle());
        handle.commands.try_send(Command::Start(reply)).map_err(|_| SessionError::Overloaded)?;
        Ok(Arc::clone(&handle.activity))
    }

    /// Ends the session and waits until its containers are gone. Idempotent.
    pub async fn stop(self: &Arc<Self>, sandbox: &SandboxRow) -> Result<(), ApiError> {
        if self.unfinished.is_unsettled(&sandbox.id) {
            let stopped = tokio::time::timeout(task::STOP_TIMEOUT, stop_unsettled(self, sandbox)).await;
            stopped.unwrap_or_else(|_| Err(not_in_time()))?;
        }
        let done = {
            let tasks = self.tasks();
            let Some(handle) = tasks.get(&sandbox.id) else { return Ok(()) };
            let (reply, done) = oneshot::channel();
            handle.commands.try_send(Command::Stop(reply)).map_err(|_| {
                ApiError::new(Code::Overloaded, "too many calls wait for this sandbox")
                    .after(Duration::from_secs(1))
            })?;
            done
        };
        match tokio::time::timeout(task::STOP_TIMEOUT, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(not_in_time()),
        }
    }

    /// Waits until the session's task publishes something, at most `patience`.
    pub async fn changed(&self, sandbox_id: &str, patience: Duration) {
        let view = self.tasks().get(sandbox_id).map(|h| h.view.clone());
        let change = async {
            if let Some(mut view) = view {
                view.mark_unchanged();
                if view.changed().await.is_ok() {
                    return;
                }
            }
            // Nothing to watch: there is no task, or no longer.
            std::future::pending::<()>().await;
        };
        // Late or not: the caller looks again either way.
        let _late = tokio::time::timeout(patience, change).await;
    }

    /// Has a running session's runtimes asked for their health now; the view shows what they said.
    pub async fn probe(&self, sandbox_id: &str) {
        let (reply, done) = oneshot::channel();
        let asked = self
            .tasks()
            .get(sandbox_id)
            .is_some_and(|handle| handle.commands.try_send(Command::Probe(reply)).is_ok());
        if asked {
            // No answer in time shows as the last probe's time: it is never an error.
            let _late = tokio::time::timeout(task::PROBE_TIMEOUT, done).await;
        }
    }

    /// Ends the session of a deleted sandbox, whether it has a task or only a row. What the driver cannot do now
    /// is done later: the rows say what is left.
    pub async fn remove(
        self: &Arc<Self>,
        sandbox: &SandboxRow,
        session: Option<&SessionRow>,
    ) -> Result<(), ApiError> {
        let removed = self.end(sandbox, session).await;
        if removed.is_err() {
            self.unfinished.wake();
        }
        removed
    }

    async fn end(
        self: &Arc<Self>,
        sandbox: &SandboxRow,
        session: Option<&SessionRow>,
    ) -> Result<(), ApiError> {
        self.stop(sandbox).await?;
        let Some(session) = session else { return Ok(()) };
        let current = self.env.store.get_session(&sandbox.tenant, &session.id).await?;
        if current.state.is_live() && !self.unfinished.is_late(&current.id) {
            self.env.remove(&super::start::references(&current), self.env.stop_grace).await?;
            self.env.transition(sandbox, &current.key(), Transition::Ended).await?;
        }
        Ok(())
    }

    /// Takes over a session that an earlier Bay started.
    pub(super) fn adopt(self: &Arc<Self>, sandbox: &SandboxRow, live: Live) {
        let view = View { phase: Phase::Ready, live: Some(Arc::new(live)), failure: None, checked: None };
        self.handle(&mut self.tasks(), sandbox, view);
    }

    /// The task's last act: gone from the map, unless somebody asked for something meanwhile.
    pub(super) fn retire(&self, sandbox_id: &str, commands: &mpsc::Receiver<Command>) -> bool {
        let mut tasks = self.tasks();
        if !commands.is_empty() {
            return false;
        }
        tasks.remove(sandbox_id);
        true
    }

    fn handle<'m>(
        self: &Arc<Self>,
        tasks: &'m mut MutexGuard<'_, HashMap<String, Handle>>,
        sandbox: &SandboxRow,
        initial: View,
    ) -> &'m mut Handle {
        tasks.entry(sandbox.id.clone()).or_insert_with(|| {
            let (commands, receiver) = mpsc::channel(COMMANDS);
            let (publish, view) = watch::channel(initial);
            let activity = Arc::new(Activity::new());
            let task = task::Task::new(
                Arc::clone(&self.env),
                Arc::clone(self),
                sandbox.clone(),
                receiver,
                publish,
                Arc::clone(&activity),
            );
            tokio::spawn(task.run());
            Handle { commands, view, activity }
        })
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_in_time() -> ApiError {
    ApiError::new(Code::Unavailable, "the sandbox did not stop in time; try again")
        .with(serde_json::json!({ "part": "driver" }))
}
