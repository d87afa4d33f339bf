//! Which executions there are: those that run, and the last of those that ended.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::live::{Context, Execution};
use crate::agent::error::{Code, Failure};
use crate::files::pool::Pool;

/// Executions that run at once, waiting ones included: more than the kernel's queue and the shell's bound together.
const MAX_RUNNING: usize = 128;
/// Executions that have ended and can still be asked for.
const MAX_ENDED: usize = 256;
/// Memory that those may take together, and space on the disk.
const MAX_ENDED_MEMORY: usize = 4 << 20;
const MAX_ENDED_DISK: u64 = 256 << 20;
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
}

/// All that can be asked for, and in which order they ended.
#[derive(Default)]
pub(super) struct Ledger {
    all: HashMap<String, Arc<Execution>>,
    ended: VecDeque<Ended>,
    /// What those that ended take together.
    memory: usize,
    disk: u64,
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
        Self { ledger: Arc::default(), count: Arc::default(), pool, limit }
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
        if ledger.all.len() - ledger.ended.len() >= MAX_RUNNING {
            return Err(Failure::new(Code::Busy, format!("{MAX_RUNNING} executions are under way already")));
        }
        let id = context.id.clone();
        let home = Arc::downgrade(&self.ledger);
        let execution = Execution::new(context, capability, asked, self.limit, self.pool.clone(), home);
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

    /// Takes one back that was refused before anything of it happened.
    pub(crate) fn withdraw(&self, execution: &Execution) {
        self.ledger().all.remove(&execution.context().id);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// One has ended; what it takes does not change any more.
    pub(super) fn ended(&mut self, execution: &Execution, (memory, disk): (usize, u64)) {
        // Not where it was withdrawn.
        let Some(known) = self.all.get(&execution.context().id) else { return };
        if !std::ptr::eq(Arc::as_ptr(known), execution) {
            return;
        }
        let execution = Arc::clone(known);
        self.memory += memory;
        self.disk += disk;
        self.ended.push_back(Ended { execution, at: Instant::now(), memory, disk });
        self.forget();
    }

    /// Lets go of what ended too long ago, and of the oldest while there are too many or they take too much. Whoever
    /// reads one just then reads it to its end.
    fn forget(&mut self) {
        // The newest one always stays: whoever waited for it may be about to ask for the rest of its output.
        while self.ended.len() > 1 {
            let full =
                self.ended.len() > MAX_ENDED || self.memory > MAX_ENDED_MEMORY || self.disk > MAX_ENDED_DISK;
            if !full && self.ended.front().is_none_or(|oldest| oldest.at.elapsed() <= KEEP) {
                return;
            }
            if let Some(oldest) = self.ended.pop_front() {
                self.memory -= oldest.memory;
                self.disk -= oldest.disk;
                self.all.remove(&oldest.execution.context().id);
            }
        }
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
        first.finish(Ok(json!({"success": true})));
        first.finish(Ok(json!({"success": false})));
        assert!(Arc::ptr_eq(&first, &begin(&all, "exe_1")));
        assert_eq!(all.get("exe_1").unwrap().record()["status"], "succeeded");
        assert_eq!(all.get("exe_2").map(|_| ()).unwrap_err().code, Code::NotFound);
        let other = Context { id: "exe_1".into(), session_seq: None };
        assert_eq!(all.begin(other, "shell", [2; 32]).map(|_| ()).unwrap_err().code, Code::Conflict);
        let bad = Context { id: "a b".into(), session_seq: None };
        assert!(all.begin(bad, "shell", [1; 32]).is_err());
    }

    #[test]
    fn what_ended_is_bounded_in_number_and_memory_and_the_running_stay() {
        let all = executions();
        let running = begin(&all, "running");
        for number in 0..1000 {
            let execution = begin(&all, &format!("exe_{number}"));
            execution.output(Stream::Stdout, &[b'x'; 100_000]);
            execution.finish(Ok(json!({"success": true})));
        }
        let kept = all.ledger().all.len();
        assert!((10..200).contains(&kept), "{kept}");
        assert!(all.get("running").is_ok() && all.get("exe_999").is_ok() && all.get("exe_0").is_err());
        assert_eq!(running.record()["status"], "running");
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
