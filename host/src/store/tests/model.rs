//! Random sequences of operations against a model small enough to be right by looking at it, with reopenings in
//! between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Sandboxes the sequences play with; few, so that operations meet.
const PLAYED: usize = 4;
/// An expiry that some of them have; the clock ticks once an operation, so that it passes within a sequence.
const EXPIRY: Millis = 25;

#[derive(Debug, Clone)]
enum Op {
    Create { slot: usize, expires: bool, owner: bool },
    Begin { slot: usize },
    Step { slot: usize, step: u8, stale: bool },
    Clean { slot: usize },
    Fail { slot: usize },
    Forget { slot: usize },
    Touch { slot: usize },
    Delete { slot: usize },
    Record { slot: usize },
    Finish { slot: usize },
    RemoveLockers,
    Purge,
    LoseExecutions,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let slot = 0..PLAYED;
    prop_oneof![
        4 => (slot.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(slot, expires, owner)| Op::Create { slot, expires, owner }),
        6 => slot.clone().prop_map(|slot| Op::Begin { slot }),
        12 => (slot.clone(), 0..5u8, prop::bool::weighted(0.1))
            .prop_map(|(slot, step, stale)| Op::Step { slot, step, stale }),
        2 => slot.clone().prop_map(|slot| Op::Clean { slot }),
        1 => slot.clone().prop_map(|slot| Op::Fail { slot }),
        1 => slot.clone().prop_map(|slot| Op::Forget { slot }),
        2 => slot.clone().prop_map(|slot| Op::Touch { slot }),
        3 => slot.clone().prop_map(|slot| Op::Delete { slot }),
        3 => slot.clone().prop_map(|slot| Op::Record { slot }),
        3 => slot.prop_map(|slot| Op::Finish { slot }),
        2 => Just(Op::RemoveLockers),
        1 => Just(Op::Purge),
        1 => Just(Op::LoseExecutions),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Debug, Clone)]
struct MSession {
    key: SessionKey,
    state: SessionState,
    cleaned: bool,
}

#[derive(Debug, Clone)]
struct MSandbox {
    id: String,
    owner: Tenant,
    created_at: Millis,
    expires_at: Option<Millis>,
    last_active_at: Millis,
    seq: u64,
    generation: u64,
    failed: bool,
    deleted: bool,
    locker: Option<String>,
    sessions: Vec<MSession>,
    executions: BTreeMap<String, ExecutionStatus>,
}

impl MSandbox {
    fn live(&self) -> Option<&MSession> {
        self.sessions.iter().find(|s| s.state.is_live())
    }

    fn status(&self, now: Millis) -> SandboxStatus {
        match (self.expires_at, self.live().map(|s| s.state)) {
            (Some(at), _) if at <= now => SandboxStatus::Expired,
            (_, Some(SessionState::Starting)) => SandboxStatus::Starting,
            (_, Some(SessionState::Ready)) => SandboxStatus::Ready,
            (_, Some(_)) => SandboxStatus::Stopping,
            (_, None) if self.failed => SandboxStatus::Failed,
            (_, None) => SandboxStatus::Idle,
        }
    }
}

struct World {
    fixture: Fixture,
    now: Millis,
    /// Every sandbox ever made that was not purged; `slots` says which one an operation means.
    sandboxes: Vec<MSandbox>,
    slots: [Option<usize>; PLAYED],
}

impl World {
    fn new() -> Self {
        Self { fixture: Fixture::new(), now: 0, sandboxes: Vec::new(), slots: [None; PLAYED] }
    }

    fn at(&mut self, slot: usize) -> Option<&mut MSandbox> {
        self.slots[slot].and_then(|n| self.sandboxes.get_mut(n))
    }

    async fn run(&mut self, op: &Op) {
        self.now += 1;
        let now = self.now;
        let store = self.fixture.store().clone();
        match *op {
            Op::Create { slot, expires, owner } => {
                let owner = tenant(if owner { "a" } else { "b" });
                let expires_at = expires.then_some(EXPIRY);
                let new = NewSandbox { expires_at, ..new_sandbox(now / 2) };
                let (row, locker) = store.create_sandbox(&owner, new, managed(now)).await.unwrap();
                self.slots[slot] = Some(self.sandboxes.len());
                self.sandboxes.push(MSandbox {
                    id: row.id,
                    owner,
                    created_at: now / 2,
                    expires_at,
                    last_active_at: now / 2,
                    seq: 0,
                    generation: 0,
                    failed: false,
                    deleted: false,
                    locker: Some(locker.id),
                    sessions: Vec::new(),
                    executions: BTreeMap::new(),
                });
            }
            Op::Begin { slot } => {
                let Some(m) = self.at(slot) else { return };
                let answer = store.begin_session(&m.owner, &m.id, ship(), now).await;
                if m.deleted {
                    assert!(is_missing(&answer));
                } else if m.live().is_some() {
                    assert_eq!(conflict(answer), Conflict::SessionLive);
                } else if m.expires_at.is_some_and(|at| at <= now) {
                    assert_eq!(conflict(answer), Conflict::Expired { expires_at: EXPIRY });
                } else {
                    let row = answer.unwrap();
                    m.seq += 1;
                    m.generation += 1;
                    assert_eq!((row.seq, row.generation), (m.seq, m.generation));
                    m.sessions.push(MSession {
                        key: row.key(),
                        state: SessionState::Starting,
                        cleaned: false,
                    });
                }
            }
            Op::Step { slot, step, stale } => {
                let Some(m) = self.at(slot) else { return };
                let Some(session) = m.sessions.last_mut() else { return };
                use SessionState::{Ended, Failed, Lost, Ready, Starting, Stopping};
                let (step, from, to): (_, &[_], _) = match step {
                    0 => (Transition::Ready, &[Starting], Ready),
                    1 => (Transition::Stopping { reason: "r".to_owned() }, &[Starting, Ready], Stopping),
                    2 => (Transition::Ended, &[Stopping], Ended),
                    3 => (Transition::Failed(failure(now)), &[Starting], Failed),
                    _ => (Transition::Lost(failure(now)), &[Ready], Lost),
                };
                let mut key = session.key.clone();
                key.generation += u64::from(stale);
                let answer = store.transition_session(&m.owner, &key, step, now).await;
                if stale || !from.contains(&session.state) {
                    assert_eq!(conflict(answer), Conflict::Stale);
                } else {
                    assert_eq!(answer.unwrap().state, to);
                    session.state = to;
                    session.cleaned |= to == Ended;
                    match to {
                        Ready => m.failed = false,
                        Failed | Lost => m.failed = true,
                        _ => {}
                    }
                }
            }
            Op::Clean { slot } => {
                let Some(m) = self.at(slot) else { return };
                let owner = m.owner.clone();
                for session in &mut m.sessions {
                    let answer = store.session_cleaned(&owner, &session.key, now).await;
                    if session.state.is_live() {
                        assert_eq!(conflict(answer), Conflict::Stale);
                    } else {
                        answer.unwrap();
                        session.cleaned = true;
                    }
                }
            }
            Op::Fail { slot } | Op::Forget { slot } => {
                let fail = matches!(op, Op::Fail { .. });
                let Some(m) = self.at(slot) else { return };
                let answer = match fail {
                    true => store.set_failure(&m.owner, &m.id, failure(now)).await,
                    false => store.clear_failure(&m.owner, &m.id).await,
                };
                if m.deleted {
                    assert!(is_missing(&answer));
                } else {
                    answer.unwrap();
                    m.failed = fail;
                }
            }
            Op::Touch { slot } => {
                let Some(m) = self.at(slot) else { return };
                let answer = store.touch_sandbox(&m.owner, &m.id, now, Some(now + 10)).await;
                if m.deleted {
                    assert!(is_missing(&answer));
                } else {
                    answer.unwrap();
                    m.last_active_at = now;
                }
            }
            Op::Delete { slot } => {
                let Some(m) = self.at(slot) else { return };
                let answer = store.delete_sandbox(&m.owner, &m.id, now).await.unwrap();
                assert_eq!(answer.again, m.deleted);
                if !m.deleted {
                    m.deleted = true;
                    m.generation += 1;
                    m.executions.clear();
                    for session in m.sessions.iter_mut().filter(|s| s.state.is_live()) {
                        session.state = SessionState::Stopping;
                    }
                }
                assert_eq!(answer.session.map(|s| s.key()), m.live().map(|s| s.key.clone()));
                assert_eq!(answer.locker.map(|l| l.id), m.locker);
            }
            Op::Record { slot } => {
                let Some(m) = self.at(slot) else { return };
                let new = new_execution(&m.id, now);
                let id = new.id.clone();
                let answer = store.record_execution(&m.owner, new).await;
                if m.deleted {
                    assert!(is_missing(&answer));
                } else {
                    answer.unwrap();
                    m.last_active_at = now;
                    m.executions.insert(id, ExecutionStatus::Running);
                }
            }
            Op::Finish { slot } => {
                let Some(m) = self.at(slot) else { return };
                let Some((id, status)) = m.executions.iter_mut().next() else { return };
                let answer = store.finish_execution(&m.owner, id, end(ExecutionStatus::Succeeded, now)).await;
                if *status == ExecutionStatus::Running {
                    answer.unwrap();
                    *status = ExecutionStatus::Succeeded;
                    m.last_active_at = now;
                } else {
                    assert_eq!(conflict(answer), Conflict::Finished);
                }
            }
            Op::RemoveLockers => {
                for locker in store.list_pending_removals(&system()).await.unwrap().lockers {
                    store.finish_locker_removal(&system(), &locker.id).await.unwrap();
                    let owner =
                        self.sandboxes.iter_mut().find(|m| m.locker.as_ref() == Some(&locker.id)).unwrap();
                    assert!(owner.deleted && owner.sessions.iter().all(|s| s.cleaned));
                    owner.locker = None;
                }
            }
            Op::Purge => {
                let gone =
                    |m: &MSandbox| m.deleted && m.locker.is_none() && m.sessions.iter().all(|s| s.cleaned);
                let expected = self.sandboxes.iter().filter(|m| gone(m)).count();
                assert_eq!(store.purge_tombstones(&system(), now + 1).await.unwrap(), expected);
                let kept: Vec<_> = (0..self.sandboxes.len()).filter(|n| !gone(&self.sandboxes[*n])).collect();
                for slot in &mut self.slots {
                    *slot = slot.and_then(|n| kept.iter().position(|k| *k == n));
                }
                self.sandboxes.retain(|m| !gone(m));
            }
            Op::LoseExecutions => {
                let mut running = 0;
                for status in self.sandboxes.iter_mut().flat_map(|m| m.executions.values_mut()) {
                    if *status == ExecutionStatus::Running {
                        *status = ExecutionStatus::Lost;
                        running += 1;
                    }
                }
                assert_eq!(store.mark_executions_lost(&system(), now, "restart").await.unwrap(), running);
            }
            Op::Reopen => {
                drop(store);
                self.fixture.reopen();
            }
        }
    }

    /// Everything the store shows is what the model says.
    async fn check(&self) {
        let store = self.fixture.store();
        for owner in [tenant("a"), tenant("b")] {
            let mut expected: Vec<_> =
                self.sandboxes.iter().filter(|m| !m.deleted && m.owner == owner).collect();
            expected.sort_by_key(|m| std::cmp::Reverse((m.created_at, m.id.clone())));
            let rows =
                store.list_sandboxes(&owner, SandboxFilter::default(), Page::first(200)).await.unwrap().items;
            assert_eq!(
                rows.iter().map(|r| &r.id).collect::<Vec<_>>(),
                expected.iter().map(|m| &m.id).collect::<Vec<_>>()
            );
            for (row, m) in rows.iter().zip(expected) {
                assert_eq!(row.status(self.now), m.status(self.now));
                assert_eq!((row.session_seq, row.generation), (m.seq, m.generation));
                assert_eq!(row.last_active_at, m.last_active_at);
                assert_eq!(row.failure.is_some(), m.failed);
                assert_eq!(row.session.as_ref().map(|s| &s.key), m.live().map(|s| &s.key));
                let history =
                    store.list_executions(&owner, &row.id, ExecutionFilter::default(), Page::first(200));
                let history: BTreeMap<_, _> =
                    history.await.unwrap().items.into_iter().map(|e| (e.id, e.status)).collect();
                assert_eq!(history, m.executions);
            }
        }
        let keys = |rows: Vec<SessionRow>| {
            let mut ids: Vec<_> = rows.into_iter().map(|s| s.id).collect();
            ids.sort();
            ids
        };
        let expect = |which: &dyn Fn(&MSession) -> bool| {
            let all = self.sandboxes.iter().flat_map(|m| &m.sessions);
            let mut ids: Vec<_> = all.filter(|s| which(s)).map(|s| s.key.id.clone()).collect();
            ids.sort();
            ids
        };
        let live = store.list_live_sessions(&system()).await.unwrap();
        assert_eq!(keys(live), expect(&|s| s.state.is_live()));
        let pending = store.list_pending_removals(&system()).await.unwrap();
        let left = |s: &MSession| s.state == SessionState::Stopping || (!s.state.is_live() && !s.cleaned);
        assert_eq!(keys(pending.sessions), expect(&left));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        block_on(async {
            for op in &ops {
                world.run(op).await;
                world.check().await;
            }
        });
    }
}
