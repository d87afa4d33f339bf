//! The one task that makes a session's transitions happen. Callers send it commands and get one answer each.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::env::SessionEnv;
use super::live::{Activity, Checked, Live, View};
use super::registry::Sessions;
use super::start;
use super::state::{self, Event, Phase};
use crate::error::{ApiError, Code};
use crate::store::SandboxRow;
use crate::telemetry;
use crate::time::now_ms;

/// How long a caller waits for a stop: the grace, the force, and the removal of what is left.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a probe may take.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between attempts to remove containers that would not go.
const STOP_RETRY: Duration = Duration::from_secs(5);

/// Who waits for a start.
type StartReply = oneshot::Sender<Result<Arc<Live>, ApiError>>;
/// Who waits for a stop.
type StopReply = oneshot::Sender<Result<(), ApiError>>;

/// What callers ask of a session.
pub(super) enum Command {
    /// Be ready.
    Start(Option<StartReply>),
    /// Be idle.
    Stop(StopReply),
    /// Ask the runtimes how they are, if there are any.
    Probe(oneshot::Sender<()>),
    /// Look at the sandbox's times again: they were changed.
    Refresh,
}

pub(super) fn stopped_meanwhile() -> ApiError {
    ApiError::new(Code::Conflict, "the sandbox was stopped while this call waited for it")
}

/// One session's task.
pub(super) struct Task {
    env: Arc<SessionEnv>,
    registry: Arc<Sessions>,
    sandbox: SandboxRow,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<View>,
    activity: Arc<Activity>,
    starts: Vec<StartReply>,
    stops: Vec<StopReply>,
}

impl Task {
    pub(super) fn new(
        env: Arc<SessionEnv>,
        registry: Arc<Sessions>,
        sandbox: SandboxRow,
        commands: mpsc::Receiver<Command>,
        view: watch::Sender<View>,
        activity: Arc<Activity>,
    ) -> Self {
        Self { env, registry, sandbox, commands, view, activity, starts: Vec::new(), stops: Vec::new() }
    }

    /// Runs until the session is over and nobody asks for another.
    pub(super) async fn run(mut self) {
        loop {
            match self.phase() {
                Phase::Idle | Phase::Failed | Phase::Lost => {
                    if self.registry.retire(&self.sandbox.id, &self.commands) {
                        return;
                    }
                    self.await_command().await;
                }
                Phase::Starting => self.start().await,
                Phase::Ready => self.watch_ready().await,
                Phase::Stopping => self.stop().await,
            }
        }
    }

    fn phase(&self) -> Phase {
        self.view.borrow().phase
    }

    /// Applies an event; an illegal one is a bug here, and changes nothing.
    fn apply(&self, event: Event, change: impl FnOnce(&mut View)) {
        match state::next(self.phase(), event) {
            Ok(phase) => {
                self.view.send_modify(|view| {
                    view.phase = phase;
                    change(view);
                });
            }
            Err(illegal) => tracing::error!(sandbox = %self.sandbox.id, %illegal, "session task"),
        }
    }

    async fn await_command(&mut self) {
        if let Some(command) = self.commands.recv().await {
            self.accept(command);
        }
    }

    /// What a command means where nothing needs to be cancelled.
    fn accept(&mut self, command: Command) {
        match command {
            Command::Start(reply) => {
                let live = self.view.borrow().live.clone();
                match (self.phase(), live, reply) {
                    (Phase::Ready, Some(live), Some(reply)) => {
                        let _gone = reply.send(Ok(live));
                    }
                    (_, _, reply) => {
                        self.starts.extend(reply);
                        self.apply(Event::Start, |view| view.failure = None);
                    }
                }
            }
            Command::Stop(reply) => {
                if self.phase() == Phase::Idle {
                    let _gone = reply.send(Ok(()));
                    return;
                }
                self.stops.push(reply);
                self.apply(Event::Stop, |_| {});
            }
            // Nothing runs that could be asked.
            Command::Probe(reply) => drop(reply),
            // Times matter while it is ready, which begins with a look at them.
            Command::Refresh => {}
        }
    }

    /// One start, with commands still heard: more callers join it, a stop cancels it.
    async fn start(&mut self) {
        let cancel = CancellationToken::new();
        let sessions = Arc::clone(&self.registry);
        let sandbox = self.sandbox.clone();
        let began = std::time::Instant::now();
        let mut starting = std::pin::pin!(start::start(&sessions, &sandbox, &cancel));
        let result = loop {
            tokio::select! {
                result = &mut starting => break result,
                command = self.commands.recv() => match command {
                    Some(Command::Start(reply)) => self.starts.extend(reply),
                    Some(Command::Stop(reply)) => {
                        self.stops.push(reply);
                        self.apply(Event::Stop, |_| {});
                        cancel.cancel();
                    }
                    Some(Command::Probe(reply)) => drop(reply),
                    Some(Command::Refresh) => {}
                    None => cancel.cancel(),
                },
            }
        };
        telemetry::metrics::start_ended(began, &result);
        match result {
            Ok(live) => {
                let live = Arc::new(live);
                self.activity.touch();
                let checked = Checked { healthy: true, at: now_ms() };
                self.apply(Event::Started, |view| {
                    view.live = Some(Arc::clone(&live));
                    view.checked = Some(checked);
                });
                // A stop that came too late to cancel it counts all the same: nobody gets what is about to go,
                // and nobody gets a new session for having asked before the stop.
                let ready = self.phase() == Phase::Ready;
                for reply in self.starts.drain(..) {
                    let _gone =
                        reply.send(if ready { Ok(Arc::clone(&live)) } else { Err(stopped_meanwhile()) });
                }
            }
            Err(error) => {
                self.apply(Event::StartFailed, |view| view.failure = Some(error.clone()));
                for reply in self.starts.drain(..) {
                    let _gone = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Ready until a stop is asked for, idleness or expiry ends it, or a container dies.
    async fn watch_ready(&mut self) {
        let Some(live) = self.view.borrow().live.clone() else {
            return self.apply(Event::Stop, |_| {});
        };
        let env = Arc::clone(&self.env);
        self.refresh().await;
        let mut died = std::pin::pin!(env.first_death(&live));
        let mut probe = tokio::time::interval(self.env.probe_interval);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ends = Instant::now() + self.env.time_left(&self.sandbox, self.activity.last_used());
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command @ Command::Stop(_)) => return self.accept(command),
                    Some(command @ Command::Start(_)) => self.accept(command),
                    Some(Command::Probe(reply)) => {
                        self.probe(&live).await;
                        let _gone = reply.send(());
                    }
                    Some(Command::Refresh) => self.refresh().await,
                    None => return self.apply(Event::Stop, |_| {}),
                },
                reason = &mut died => return self.lost(&live, &reason).await,
                _ = probe.tick() => self.probe(&live).await,
                () = tokio::time::sleep_until(ends) => {
                    // A call may have come in between, or a longer life; only real idleness, or expiry, ends a
                    // session.
                    self.refresh().await;
                    if self.env.time_left(&self.sandbox, self.activity.last_used()).is_zero() {
                        return self.apply(Event::Stop, |_| {});
                    }
                }
            }
        }
    }

    /// Takes over what clients changed of the sandbox; where the store does not say, what was known stays.
    async fn refresh(&mut self) {
        if let Ok(row) = self.env.store.get_sandbox(&self.sandbox.tenant, &self.sandbox.id).await {
            self.sandbox = row;
        }
    }

    async fn probe(&self, live: &Live) {
        let healthy = self.env.healthy(live, PROBE_TIMEOUT).await;
        self.view.send_modify(|view| view.checked = Some(Checked { healthy, at: now_ms() }));
    }

    async fn lost(&mut self, live: &Live, reason: &str) {
        tracing::warn!(sandbox = %self.sandbox.id, session = %live.key.id, reason, "session lost");
        let error = ApiError::new(Code::RuntimeError, format!("the sandbox's container ended: {reason}"));
        // Shown before it is cleared away: nobody is to be sent to what has died. Who asks meanwhile waits for it.
        self.apply(Event::Died, |view| {
            view.live = None;
            view.failure = Some(error.clone());
        });
        if let Err(error) = self.env.record_lost(&self.sandbox, live, &error).await {
            // The row says what is left. Until it is removed nothing else may have the locker.
            self.registry.unfinished().unsettle(&self.sandbox.id);
            tracing::error!(sandbox = %self.sandbox.id, error = %error.message, "could not clear a lost session away");
            self.registry.unfinished().wake();
        }
        self.walk_locker(true);
    }

    /// Removes the containers; tries until it worked, because whatever runs must not be forgotten.
    async fn stop(&mut self) {
        let live = self.view.borrow().live.clone();
        let result = match &live {
            Some(live) => self.env.stop(&self.sandbox, live).await,
            None => Ok(()),
        };
        if let Err(error) = result {
            tracing::error!(sandbox = %self.sandbox.id, error = %error.message, "could not stop; trying again");
            for reply in self.stops.drain(..) {
                let _gone = reply.send(Err(error.clone()));
            }
            self.collect_stops_for(STOP_RETRY).await;
            return;
        }
        self.walk_locker(live.is_some());
        self.apply(Event::Stopped, |view| *view = View { phase: view.phase, ..View::idle() });
        for reply in self.stops.drain(..) {
            let _gone = reply.send(Ok(()));
        }
        // Whoever asked for a start while it was stopping gets one now.
        if !self.starts.is_empty() {
            self.apply(Event::Start, |view| view.failure = None);
        }
    }

    /// What the session leaves in its locker is known soon after its end.
    fn walk_locker(&self, had_session: bool) {
        if had_session {
            self.registry.usage().walk_later(&self.env, &self.sandbox.tenant, &self.sandbox.locker_id);
        }
    }

    async fn collect_stops_for(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while let Ok(Some(command)) = tokio::time::timeout_at(until, self.commands.recv()).await {
            self.accept(command);
        }
    }
}
