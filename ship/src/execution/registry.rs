//! Which executions there are: those that run, and the last of those that ended.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::live::{Context, Execution};
use super::spool::Budget;
use crate::agent::error::{Code, Failure};
use crate::files::pool::Pool;

/// Executions that run at once, waiting ones included: more than the kernel's queue and the shell's bound together.
const MAX_RUNNING: usize = 128;
/// Executions that have ended and can still be asked for.
const MAX_ENDED: usize = 256;
/// Memory that those may take together. Beyond it the oldest keep nothing but the fact that they ran.
const MAX_ENDED_MEMORY: usize = 8 << 20;
/// How many times the bound of one stream all executions may keep on the disk, half of it after their end.
const DISK: u64 = 4;
/// How long they can be asked for: Bay has its own record by then.
const KEEP: Duration = Duration::from_secs(600);
/// As Bay mints them, and a bound for whoever does not.
const MAX_ID: usize = 64;

/// What asking for an execution came to.
pub(crate) enum Begun {
    /// It is new: the caller runs it, and ends it.
    New(Arc<Execution>),
    /// It runs or ran already.
    Known(Arc<Execution>),
}

/// The executions of a container. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Executions {
    ledger: Arc<Mutex<Ledger>>,
    count: Arc<AtomicU64>,
    pool: Pool,
    limit: u64,
    budget: Arc<Budget>,
}

/// All that can be asked for, and in which order they ended.
#[derive(Default)]
pub(super) struct Ledger {
    all: HashMap<String, Arc<Execution>>,
    ended: VecDeque<Ended>,
    /// Those that ended before, of which nothing else is kept.
    light: VecDeque<(Arc<Execution>, Instant)>,
    /// What those that ended take together.
    memory: usize,
    disk: u64,
    max_disk: u64,
}

struct Ended {
    execution: Arc<Execution>,
    at: Instant,
    memory: usize,
    disk: u64,
}

impl Executions {
    /// None yet. `limit` is how many bytes of each stream are kept; writing happens on `pool`.
    pub(crate) fn new(pool: Pool, limit: u64) -> Self {
        let disk = limit.saturating_mul(DISK);
        let ledger = Ledger { max_disk: disk / 2, ..Ledger::default() };
        let (ledger, budget) = (Arc::new(Mutex::new(ledger)), Arc::new(Budget::new(disk)));
        Self { ledger, count: Arc::default(), pool, limit, budget }
    }

    /// Finds the execution of this id, or makes it. An empty id gets one of Ship's own. `asked` tells requests apart:
    /// an id stands for one.
    pub(crate) fn begin(
        &self,
        mut context: Context,
        capability: &'static str,
        asked: [u8; 32],
    ) -> Result<Begun, Failure> {
        if context.id.is_empty() {
            context.id = format!("local_{}", self.count.fetch_add(1, Ordering::Relaxed) + 1);
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if context.id.len() > MAX_ID || !context.id.bytes().all(fits) {
            let words = format!("must be 1 to {MAX_ID} letters, digits, `_` or `-`");
            return Err(Failure::field("X-Execution-Id", words));
        }
        let mut ledger = self.ledger();
        ledger.forget();
        if let Some(known) = ledger.all.get(&context.id) {
            if known.asked() != asked {
                return Err(Failure::new(Code::Conflict, "this execution id stands for another request"));
            }
            return Ok(Begun::Known(Arc::clone(known)));
        }
        if ledger.all.len() - ledger.ended.len() - ledger.light.len() >= MAX_RUNNING {
            return Err(Failure::new(Code::Busy, format!("{MAX_RUNNING} executions are under way already")));
        }
        let id = context.id.clone();
        let home = Arc::downgrade(&self.ledger);
        let means = (self.pool.clone(), &self.budget);
        let execution = Execution::new(context, capability, asked, self.limit, means, home);
        let execution = Arc::new(execution);
        ledger.all.insert(id, Arc::clone(&execution));
        Ok(Begun::New(execution))
    }

    /// One that is known.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Execution>, Failure> {
        self.ledger()
            .all
            .get(id)
            .map(Arc::clone)
            .ok_or_else(|| Failure::new(Code::NotFound, "there is no such execution, or it ended long ago"))
    }

    /// Whether an execution of this id is known.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.ledger().all.contains_key(id)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// One has ended; what it takes does not change any more.
    pub(super) fn ended(&mut self, execution: &Execution, (memory, disk): (usize, u64)) {
        let Some(execution) = self.known(execution) else { return };
        self.memory += memory;
        self.disk += disk;
        self.ended.push_back(Ended { execution, at: Instant::now(), memory, disk });
        self.forget();
    }

    /// One was refused before anything of it happened: its id stands for nothing.
    pub(super) fn withdraw(&mut self, execution: &Execution) {
        if self.known(execution).is_some() {
            self.all.remove(&execution.context().id);
        }
    }

    fn known(&self, execution: &Execution) -> Option<Arc<Execution>> {
        let known = self.all.get(&execution.context().id)?;
        std::ptr::eq(Arc::as_ptr(known), execution).then(|| Arc::clone(known))
    }

    /// Lets go of what the oldest keep while all take too much, and of those that ended too long ago or are too
    /// many. Whoever waits for one just then, or reads it, has it to its end.
    fn forget(&mut self) {
        // The newest one always stays: whoever waited for it may be about to ask for the rest of its output.
        while self.ended.len() > 1 && (self.memory > MAX_ENDED_MEMORY || self.disk > self.max_disk) {
            let older = self.ended.iter().take(self.ended.len() - 1);
            let Some(place) = older.map(|one| &one.execution).position(|one| !one.is_in_use()) else { break };
            if let Some(Ended { execution, at, .. }) = self.take(place) {
                execution.lighten();
                self.light.push_back((execution, at));
            }
        }
        while self.ended.len() + self.light.len() > 1 {
            let oldest = self.light.front().map(|(_, at)| *at).or(self.ended.front().map(|ended| ended.at));
            let full = self.ended.len() + self.light.len() > MAX_ENDED;
            if !full && oldest.is_none_or(|at| at.elapsed() <= KEEP) {
                return;
            }
            let light = self.light.pop_front().map(|(execution, _)| execution);
            if let Some(execution) = light.or_else(|| self.take(0).map(|ended| ended.execution)) {
                self.all.remove(&execution.context().id);
            }
        }
    }

    fn take(&mut self, place: usize) -> Option<Ended> {
        let ended = self.ended.remove(place)?;
        self.memory -= ended.memory;
        self.disk -= ended.disk;
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::execution::Stream;

    fn executions() -> Executions {
        Executions::new(Pool::start().unwrap(), 64 << 20)
    }

    fn begin(all: &Executions, id: &str) -> Arc<Execution> {
        let context = Context { id: id.to_owned(), session_seq: None };
        match all.begin(context, "shell", [1; 32]).unwrap() {
            Begun::New(execution) | Begun::Known(execution) => execution,
        }
    }

    #[test]
    fn an_id_runs_once_and_can_be_found_after_its_end() {
        let all = executions();
        let first = begin(&all, "exe_1");
        assert!(Arc::ptr_eq(&first, &begin(&all, "exe_1")));
        first.started(None);
        first.finish(Ok(json!({"success": true})));
        first.finish(Ok(json!({"success": false})));
        assert!(Arc::ptr_eq(&first, &begin(&all, "exe_1")));
        let record = serde_json::to_value(all.get("exe_1").unwrap().record()).unwrap();
        assert_eq!(record["status"], "succeeded");
        assert_eq!(all.get("exe_2").map(|_| ()).unwrap_err().code, Code::NotFound);
        let other = Context { id: "exe_1".into(), session_seq: None };
        assert_eq!(all.begin(other, "shell", [2; 32]).map(|_| ()).unwrap_err().code, Code::Conflict);
        let bad = Context { id: "a b".into(), session_seq: None };
        assert!(all.begin(bad, "shell", [1; 32]).is_err());
    }

    #[test]
    fn what_ended_is_bounded_in_number_and_memory_and_an_id_still_runs_once() {
        let all = executions();
        let running = begin(&all, "running");
        for number in 0..1000 {
            let execution = begin(&all, &format!("exe_{number}"));
            execution.started(None);
            execution.output(Stream::Stdout, &[b'x'; 100_000]);
            execution.finish(Ok(json!({"success": true})));
        }
        let ledger = all.ledger();
        assert_eq!(ledger.all.len(), MAX_ENDED + 1);
        assert!((10..100).contains(&ledger.ended.len()), "{}", ledger.ended.len());
        drop(ledger);
        assert!(all.get("running").is_ok() && all.get("exe_0").is_err());
        let full = all.get("exe_999").unwrap();
        assert_eq!(full.sizes(Stream::Stdout), (100_000, 100_000));
        // Of an older one only that it ran.
        let light = begin(&all, "exe_800");
        assert_eq!(light.sizes(Stream::Stdout), (0, 100_000));
        assert_eq!(serde_json::to_value(light.record()).unwrap()["error"]["code"], "conflict");
        assert_eq!(serde_json::to_value(running.record()).unwrap()["status"], "running");
    }

    #[test]
    fn whoever_waits_gets_the_answer_however_many_others_end_meanwhile() {
        let all = executions();
        let first = begin(&all, "exe_first");
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut end = Box::pin(first.end());
        assert!(end.as_mut().poll(&mut context).is_pending());
        first.started(None);
        first.finish(Ok(json!({"success": true})));
        let others = |from: u32| {
            for number in from..from + 100 {
                let execution = begin(&all, &format!("exe_{number}"));
                execution.started(None);
                execution.output(Stream::Stdout, &[b'x'; 100_000]);
                execution.finish(Ok(json!({"success": true})));
            }
        };
        others(0);
        let std::task::Poll::Ready(answer) = end.as_mut().poll(&mut context) else { panic!("it has ended") };
        assert!(answer.is_ok());
        drop(end);
        others(100);
        assert_eq!(serde_json::to_value(first.record()).unwrap()["error"]["code"], "conflict");
    }

    #[test]
    fn what_failed_before_it_began_may_be_asked_for_again() {
        let all = executions();
        let first = begin(&all, "exe_1");
        first.finish(Err(Failure::new(Code::Busy, "full")));
        let second = begin(&all, "exe_1");
        assert!(!Arc::ptr_eq(&first, &second));
        second.started(None);
        second.finish(Err(Failure::new(Code::RuntimeError, "broken")));
        assert!(Arc::ptr_eq(&second, &begin(&all, "exe_1")));
    }

    #[test]
    fn too_many_at_once_are_refused() {
        let all = executions();
        for number in 0..MAX_RUNNING {
            begin(&all, &format!("exe_{number}"));
        }
        let more = Context { id: "one_more".into(), session_seq: None };
        assert_eq!(all.begin(more, "shell", [1; 32]).map(|_| ()).unwrap_err().code, Code::Busy);
    }
}
