//! A bounded queue, fair by tenant: one tenant's flood waits behind itself, not before everyone else.
//!
//! Each tenant has a lane; lanes with work take turns, one job each. Jobs of one lane keep their order.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::auth::{SystemContext, Tenant};

/// Jobs one lane may have waiting: one tenant cannot take all of memory.
const MAX_LANE: usize = 512;
/// Jobs of all tenants that may wait. Background work has its own lane and does not count, so that a flood of
/// calls never stops the cleaning.
const MAX_TOTAL: usize = 4096;

/// Whose job it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    System,
    Tenant(Tenant),
}

impl From<&Tenant> for Lane {
    fn from(tenant: &Tenant) -> Self {
        Self::Tenant(tenant.clone())
    }
}

impl From<&SystemContext> for Lane {
    fn from(_: &SystemContext) -> Self {
        Self::System
    }
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

#[derive(Debug)]
struct State<J> {
    lanes: HashMap<Lane, VecDeque<J>>,
    /// Lanes that have work, in the order of their turns; each once.
    turns: VecDeque<Lane>,
    tenant_jobs: usize,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct FairQueue<J> {
    state: Mutex<State<J>>,
    filled: Condvar,
}

impl<J> FairQueue<J> {
    pub(super) fn new() -> Self {
        let state = State { lanes: HashMap::new(), turns: VecDeque::new(), tenant_jobs: 0, closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Adds a job to its lane. Never waits.
    pub(super) fn push(&self, lane: Lane, job: J) -> Result<(), Refused> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(Refused::Closed);
        }
        let of_tenant = matches!(lane, Lane::Tenant(_));
        let waiting = state.lanes.get(&lane).map_or(0, VecDeque::len);
        if waiting >= MAX_LANE || (of_tenant && state.tenant_jobs >= MAX_TOTAL) {
            return Err(Refused::Full);
        }
        if waiting == 0 {
            state.turns.push_back(lane.clone());
        }
        state.tenant_jobs += usize::from(of_tenant);
        state.lanes.entry(lane).or_default().push_back(job);
        drop(guard);
        self.filled.notify_one();
        Ok(())
    }

    /// The next job; waits for one. Null once the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<J> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.take() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next job, if there is one.
    pub(super) fn try_pop(&self) -> Option<J> {
        self.lock().take()
    }

    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.lock().lanes.values().map(VecDeque::len).sum()
    }

    /// Takes no more; what waits is still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// No job runs under this lock and nothing in here panics half-way, so a poisoned state is a whole one.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> State<J> {
    fn take(&mut self) -> Option<J> {
        let lane = self.turns.pop_front()?;
        let jobs = self.lanes.get_mut(&lane)?;
        let job = jobs.pop_front();
        self.tenant_jobs -= usize::from(job.is_some() && matches!(lane, Lane::Tenant(_)));
        if jobs.is_empty() {
            // A lane without work takes no memory: tenants come and go.
            self.lanes.remove(&lane);
        } else {
            self.turns.push_back(lane);
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str) -> Lane {
        Lane::from(&Tenant::new(name).unwrap())
    }

    #[test]
    fn tenants_take_turns_and_keep_their_own_order() {
        let queue = FairQueue::new();
        for n in 0..3 {
            queue.push(lane("flood"), ("flood", n)).unwrap();
        }
        queue.push(lane("quiet"), ("quiet", 0)).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| queue.try_pop()).collect();
        assert_eq!(order, [("flood", 0), ("quiet", 0), ("flood", 1), ("flood", 2)]);
    }

    #[test]
    fn a_full_lane_refuses_its_own_tenant_only() {
        let queue = FairQueue::new();
        for n in 0..MAX_LANE {
            queue.push(lane("flood"), n).unwrap();
        }
        assert_eq!(queue.push(lane("flood"), 0), Err(Refused::Full));
        assert_eq!(queue.push(lane("quiet"), 0), Ok(()));
        assert_eq!(queue.push(Lane::System, 0), Ok(()));
    }

    #[test]
    fn a_full_queue_still_takes_background_work() {
        let queue = FairQueue::new();
        let tenants: Vec<_> = (0..MAX_TOTAL / MAX_LANE).map(|t| lane(&format!("t{t}"))).collect();
        for tenant in &tenants {
            for n in 0..MAX_LANE {
                queue.push(tenant.clone(), n).unwrap();
            }
        }
        assert_eq!(queue.push(lane("late"), 0), Err(Refused::Full));
        assert_eq!(queue.push(Lane::System, 0), Ok(()));
        // Room again as soon as one is taken.
        assert!(queue.try_pop().is_some());
        assert_eq!(queue.push(lane("late"), 0), Ok(()));
    }

    #[test]
    fn a_closed_queue_hands_out_what_waits_and_then_ends() {
        let queue = FairQueue::new();
        queue.push(Lane::System, 1).unwrap();
        queue.close();
        assert_eq!(queue.push(Lane::System, 2), Err(Refused::Closed));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.pop(), None);
        assert!(queue.lock().lanes.is_empty());
    }
}
