//! Which executions there are: those that run, and the last of those that ended.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    all: Arc<Mutex<HashMap<String, Arc<Execution>>>>,
    count: Arc<AtomicU64>,
    pool: Pool,
    limit: u64,
}

impl Executions {
    /// None yet. `limit` is how many bytes of each stream are kept; writing happens on `pool`.
    pub(crate) fn new(pool: Pool, limit: u64) -> Self {
        Self { all: Arc::default(), count: Arc::default(), pool, limit }
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
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&context.id) {
            if known.asked() != asked {
                return Err(Failure::new(Code::Conflict, "this execution id stands for another request"));
            }
            return Ok(Begun::Known(Arc::clone(known)));
        }
        forget(&mut all);
        if all.values().filter(|execution| execution.ended().is_none()).count() >= MAX_RUNNING {
            return Err(Failure::new(Code::Busy, format!("{MAX_RUNNING} executions are under way already")));
        }
        let id = context.id.clone();
        let execution = Arc::new(Execution::new(context, capability, asked, self.limit, self.pool.clone()));
        all.insert(id, Arc::clone(&execution));
        Ok(Begun::New(execution))
    }

    /// One that is known.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Execution>, Failure> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(id)
            .map(Arc::clone)
            .ok_or_else(|| Failure::new(Code::NotFound, "there is no such execution, or it ended long ago"))
    }

    /// Takes one back that was refused before anything of it happened.
    pub(crate) fn withdraw(&self, execution: &Execution) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&execution.context().id);
    }
}

/// Lets go of what ended too long ago, and of the oldest while there are too many or they take too much. One that
/// is being read stays until its reader is done.
fn forget(all: &mut HashMap<String, Arc<Execution>>) {
    let mut ended: Vec<_> = all
        .iter()
        .filter(|(_, execution)| execution.readers() == 0)
        .filter_map(|(id, execution)| Some((execution.ended()?, id.clone(), execution.costs())))
        .collect();
    ended.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
    let (mut memory, mut disk) = (0, 0);
    for (place, (at, id, costs)) in ended.into_iter().enumerate() {
        memory += costs.0;
        disk += costs.1;
        let fits = memory <= MAX_ENDED_MEMORY && disk <= MAX_ENDED_DISK && place < MAX_ENDED;
        // The newest one always stays: whoever waited for it may be about to ask for the rest of its output.
        if place > 0 && (!fits || at.elapsed() > KEEP) {
            all.remove(&id);
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
        let kept = all.all.lock().unwrap().len();
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
