//! What is known of background processes, running and ended: a bounded number, with a bounded memory for all they
//! wrote.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bay_ship_api::http::{ProcessInfo, ProcessStatus};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::ring::Ring;
use super::signal_name;
use crate::agent::error::{Code, Failure};
use crate::execution::Stream;
use crate::spawner::protocol::End;
use crate::text::rfc3339;

/// Ended processes that are kept; the one that ended first goes first.
const MAX_ENDED: usize = 64;
/// How long they are kept at most.
const KEPT: Duration = Duration::from_secs(3600);
/// Memory for the output of all processes together: whatever user code writes, the agent stays this small. Beyond
/// it the largest ring loses its oldest bytes, so that a loud process costs a quiet one nothing.
const MAX_HELD: usize = 16 << 20;
/// How much of a command a listing shows, in bytes.
const SHOWN_COMMAND: usize = 1 << 10;

/// A pipe into a process; none once it is closed. One writer at a time.
pub(super) type Stdin = Arc<tokio::sync::Mutex<Option<pipe::Sender>>>;

/// One process.
pub(super) struct Job {
    process_id: String,
    execution_id: Option<String>,
    pid: u32,
    command: String,
    started_at: SystemTime,
    ended: Option<Ended>,
    rings: [Ring; 2],
    /// Whether more may come on each stream.
    open: [bool; 2],
    pub(super) stdin: Stdin,
    /// Becomes true when it is to be ended.
    pub(super) stop: watch::Sender<bool>,
    /// Changes with every byte and with the end; goes away with the job.
    pub(super) changes: watch::Sender<()>,
}

/// How and when it ended.
#[derive(Debug, Clone, Copy)]
struct Ended {
    at: SystemTime,
    since: Instant,
    how: Outcome,
}

/// How a job ended, and at whose wish.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) timed_out: bool,
    /// Ship was asked to end it.
    pub(super) stopped: bool,
}

impl Job {
    pub(super) fn new(
        process_id: String,
        execution_id: Option<String>,
        pid: u32,
        command: &str,
        stdin: Option<pipe::Sender>,
    ) -> Self {
        Self {
            process_id,
            execution_id,
            pid,
            command: command[..command.floor_char_boundary(SHOWN_COMMAND)].to_owned(),
            started_at: SystemTime::now(),
            ended: None,
            rings: Default::default(),
            open: [true; 2],
            stdin: Arc::new(tokio::sync::Mutex::new(stdin)),
            stop: watch::Sender::new(false),
            changes: watch::Sender::new(()),
        }
    }

    pub(super) fn running(&self) -> bool {
        self.ended.is_none()
    }

    pub(super) fn ring(&self, stream: Stream) -> &Ring {
        &self.rings[stream as usize]
    }

    pub(super) fn open(&self, stream: Stream) -> bool {
        self.open[stream as usize]
    }

    pub(super) fn info(&self) -> ProcessInfo {
        let how = self.ended.map(|ended| ended.how);
        let (status, exit_code, signal) = match how {
            None => (ProcessStatus::Running, None, None),
            Some(Outcome { end, timed_out, stopped }) => {
                let (code, signal) = match end {
                    End::Code(code) => (Some(code).filter(|_| !timed_out), None),
                    End::Signal(signal) => (None, Some(signal_name(signal))),
                };
                let status = match end {
                    _ if timed_out || stopped => ProcessStatus::Killed,
                    End::Code(0) => ProcessStatus::Completed,
                    End::Code(_) | End::Signal(_) => ProcessStatus::Failed,
                };
                (status, code, signal)
            }
        };
        ProcessInfo {
            process_id: self.process_id.clone(),
            execution_id: self.execution_id.clone(),
            pid: Some(self.pid),
            command: self.command.clone(),
            status,
            exit_code,
            signal,
            timed_out: how.is_some_and(|how| how.timed_out),
            started_at: rfc3339(self.started_at),
            ended_at: self.ended.map(|ended| rfc3339(ended.at)),
        }
    }
}

/// All of them, by number.
#[derive(Default)]
pub(super) struct Registry(Mutex<BTreeMap<u64, Job>>);

impl Registry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers one; what is too old or too many is forgotten.
    pub(super) fn insert(&self, number: u64, job: Job) {
        self.lock().insert(number, job);
        self.prune();
    }

    fn prune(&self) {
        let mut jobs = self.lock();
        jobs.retain(|_, job| job.ended.is_none_or(|ended| ended.since.elapsed() < KEPT));
        let mut ended: Vec<(Instant, u64)> =
            jobs.iter().filter_map(|(number, job)| Some((job.ended?.since, *number))).collect();
        ended.sort_unstable();
        for (_, number) in &ended[..ended.len().saturating_sub(MAX_ENDED)] {
            jobs.remove(number);
        }
    }

    pub(super) fn list(&self) -> Vec<ProcessInfo> {
        self.prune();
        self.lock().values().map(Job::info).collect()
    }

    /// Looks at one, or says that there is none.
    pub(super) fn with<T>(&self, number: u64, look: impl FnOnce(&Job) -> T) -> Result<T, Failure> {
        self.prune();
        self.lock().get(&number).map(look).ok_or_else(unknown)
    }

    /// Forgets one that has ended; answers how it was.
    pub(super) fn remove_ended(&self, number: u64) -> Option<ProcessInfo> {
        let mut jobs = self.lock();
        jobs.get(&number).filter(|job| !job.running())?;
        jobs.remove(&number).map(|job| job.info())
    }

    /// Takes what a process wrote.
    pub(super) fn push(&self, number: u64, stream: Stream, bytes: &[u8]) {
        let mut jobs = self.lock();
        let Some(job) = jobs.get_mut(&number) else { return };
        job.rings[stream as usize].push(bytes);
        job.changes.send_replace(());
        while jobs.values().flat_map(|job| &job.rings).map(Ring::held).sum::<usize>() > MAX_HELD {
            let rings = jobs.values_mut().flat_map(|job| &mut job.rings);
            let Some(largest) = rings.max_by_key(|ring| ring.held()) else { return };
            largest.drop_oldest();
        }
    }

    /// Nothing more will come on this stream.
    pub(super) fn close(&self, number: u64, stream: Stream) {
        if let Some(job) = self.lock().get_mut(&number) {
            job.open[stream as usize] = false;
            job.changes.send_replace(());
        }
    }

    /// It has ended.
    pub(super) fn finish(&self, number: u64, how: Outcome) {
        if let Some(job) = self.lock().get_mut(&number) {
            job.open = [false; 2];
            job.ended = Some(Ended { at: SystemTime::now(), since: Instant::now(), how });
            // Whoever writes right now notices the broken pipe.
            if let Ok(mut stdin) = job.stdin.try_lock() {
                stdin.take();
            }
            job.changes.send_replace(());
        }
        self.prune();
    }
}

pub(super) fn unknown() -> Failure {
    Failure::new(Code::NotFound, "there is no such process, or it has ended and is no longer kept")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(jobs: u64) -> Registry {
        let registry = Registry::default();
        for number in 0..jobs {
            registry.insert(number, Job::new(format!("proc_{number}"), None, 7, "true", None));
        }
        registry
    }

    fn held(registry: &Registry) -> usize {
        registry.lock().values().flat_map(|job| &job.rings).map(Ring::held).sum()
    }

    const DONE: Outcome = Outcome { end: End::Code(0), timed_out: false, stopped: false };

    #[test]
    fn many_loud_processes_share_the_memory_and_a_quiet_one_loses_nothing() {
        let registry = registry(129);
        registry.push(128, Stream::Stderr, b"quiet");
        for turn in 0..80 {
            for number in 0..128 {
                registry.push(number, Stream::Stdout, &[turn; 20_000]);
            }
        }
        assert!(held(&registry) <= MAX_HELD);
        let lengths: Vec<usize> = (0..128)
            .map(|number| {
                registry.with(number, |job| job.ring(Stream::Stdout).read(0, usize::MAX).bytes.len()).unwrap()
            })
            .collect();
        assert!(lengths.iter().all(|length| *length >= 64 << 10), "{lengths:?}");
        let quiet = registry.with(128, |job| job.ring(Stream::Stderr).read(0, 100)).unwrap();
        assert_eq!((quiet.bytes.as_slice(), quiet.lost), (&b"quiet"[..], 0));
    }

    #[test]
    fn the_one_that_ended_first_is_forgotten_first_and_running_ones_never() {
        let registry = registry(80);
        for number in (1..80).rev() {
            registry.finish(number, DONE);
        }
        let kept: Vec<String> = registry.list().into_iter().map(|info| info.process_id).collect();
        let wanted: Vec<String> = (0..=64).map(|number| format!("proc_{number}")).collect();
        assert_eq!(kept, wanted);
    }

    #[test]
    fn a_status_says_who_ended_it_and_a_code_only_what_was_waited_for() {
        let how = |end, timed_out, stopped| {
            let registry = registry(1);
            registry.finish(0, Outcome { end, timed_out, stopped });
            let info = registry.with(0, Job::info).unwrap();
            (info.status, info.exit_code, info.signal.unwrap_or_default())
        };
        assert_eq!(how(End::Code(0), false, false), (ProcessStatus::Completed, Some(0), String::new()));
        assert_eq!(how(End::Code(3), false, false), (ProcessStatus::Failed, Some(3), String::new()));
        assert_eq!(how(End::Signal(11), false, false), (ProcessStatus::Failed, None, "SIGSEGV".into()));
        assert_eq!(how(End::Code(0), false, true), (ProcessStatus::Killed, Some(0), String::new()));
        assert_eq!(how(End::Code(0), true, false), (ProcessStatus::Killed, None, String::new()));
        assert_eq!(how(End::Signal(9), true, false), (ProcessStatus::Killed, None, "SIGKILL".into()));
    }

    #[test]
    fn a_long_command_is_shown_up_to_a_whole_character() {
        let job = Job::new("proc_1".into(), None, 7, &"☃".repeat(1000), None);
        assert_eq!(job.command, "☃".repeat(341));
    }
}
