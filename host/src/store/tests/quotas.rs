//! Quotas: the last place has one winner, what goes gives its place back, and nothing drifts.

use super::*;

fn limited(fixture: &Fixture, limits: Limits) {
    let tenants = [(tenant("acme"), limits)].into();
    fixture.store().quotas().store(Arc::new(Quotas { tenants, ..Quotas::default() }));
}

/// The quota that a write was refused for, with limit and used.
fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (&'static str, u64, u64) {
    match result {
        Err(StoreError::QuotaExceeded { quota, limit, used }) => (quota, limit, used),
        other => panic!("not a quota: {other:?}"),
    }
}

async fn used(store: &Store, quota: Quota) -> u64 {
    let usage = store.usage(&tenant("acme")).await.unwrap();
    usage.into_iter().find(|usage| usage.quota == quota).unwrap().used
}

fn execution(sandbox_id: &str, code: &str) -> NewExecution {
    NewExecution { code: Some(code.to_owned()), ..new_execution(sandbox_id, 1) }
}

fn ended(output: &str) -> FinishExecution {
    let result = Some(serde_json::json!({ "output": output }));
    FinishExecution { output: Some(output.to_owned()), result, ..end(ExecutionStatus::Succeeded, 2) }
}

#[test]
fn of_two_that_race_for_the_last_sandbox_one_gets_it() {
    let fixture = Fixture::new();
    limited(&fixture, Limits::default().with(Quota::Sandboxes, 2));
    let (store, acme) = (fixture.store(), tenant("acme"));
    block_on(async {
        let first = new_sandbox(1);
        let id = first.id.clone();
        store.create_sandbox(&acme, first, managed(1)).await.unwrap();
        let (a, b) = tokio::join!(
            store.create_sandbox(&acme, new_sandbox(2), managed(2)),
            store.create_sandbox(&acme, new_sandbox(3), managed(3)),
        );
        assert_eq!(a.is_ok() as u8 + b.is_ok() as u8, 1);
        assert_eq!(refused(if a.is_ok() { b } else { a }), ("sandboxes", 2, 2));
        store.create_sandbox(&tenant("other"), new_sandbox(4), managed(4)).await.unwrap();
        store.delete_sandbox(&acme, &id, 5).await.unwrap();
        store.create_sandbox(&acme, new_sandbox(6), managed(6)).await.unwrap();
        assert_eq!(used(store, Quota::Sandboxes).await, 2);
        // A limit that is lowered takes nothing away.
        limited(&fixture, Limits::default().with(Quota::Sandboxes, 1));
        let over = store.create_sandbox(&acme, new_sandbox(7), managed(7)).await;
        assert_eq!(refused(over), ("sandboxes", 1, 2));
        limited(&fixture, Limits::default());
        store.create_sandbox(&acme, new_sandbox(8), managed(8)).await.unwrap();
    });
}

#[test]
fn a_session_has_its_place_from_the_intent_until_it_has_ended_however_it_ends() {
    let fixture = Fixture::new();
    limited(&fixture, Limits::default().with(Quota::Running, 2).with(Quota::Starting, 1));
    let (store, acme) = (fixture.store(), tenant("acme"));
    block_on(async {
        let mut ids = Vec::new();
        for at in 1..=3 {
            let new = new_sandbox(at);
            ids.push(new.id.clone());
            store.create_sandbox(&acme, new, managed(at)).await.unwrap();
        }
        let begin = |n: usize| store.begin_session(&acme, &ids[n], ship(), 9);
        let first = begin(0).await.unwrap().key();
        assert_eq!(refused(begin(1).await), ("starting", 1, 1));
        store.transition_session(&acme, &first, Transition::Ready, 10).await.unwrap();
        let (a, b) = tokio::join!(begin(1), begin(2));
        assert!(a.is_ok() && b.is_err(), "{b:?}");
        let second = a.unwrap().key();
        store.transition_session(&acme, &second, Transition::Failed(failure(11)), 11).await.unwrap();
        assert_eq!((used(store, Quota::Starting).await, used(store, Quota::Running).await), (0, 1));
        let third = begin(2).await.unwrap().key();
        store.transition_session(&acme, &third, Transition::Ready, 12).await.unwrap();
        assert_eq!(refused(begin(1).await), ("running", 2, 2));
        store.transition_session(&acme, &third, Transition::Lost(failure(13)), 13).await.unwrap();
        // One that is being stopped still has containers, deleted or not.
        store.delete_sandbox(&acme, &ids[0], 14).await.unwrap();
        assert_eq!(used(store, Quota::Running).await, 1);
        store.transition_session(&acme, &first, Transition::Ended, 15).await.unwrap();
        assert_eq!(used(store, Quota::Running).await, 0);
    });
}

#[test]
fn an_execution_has_its_place_until_it_has_ended_or_is_lost() {
    let mut fixture = Fixture::new();
    let limits = Limits::default().with(Quota::Executions, 1);
    limited(&fixture, limits.clone());
    let acme = tenant("acme");
    let new = new_sandbox(1);
    let sandbox = new.id.clone();
    block_on(async {
        let store = fixture.store();
        store.create_sandbox(&acme, new, managed(1)).await.unwrap();
        let (first, second) = (execution(&sandbox, "1"), execution(&sandbox, "2"));
        let id = first.id.clone();
        let (a, b) =
            tokio::join!(store.record_execution(&acme, first), store.record_execution(&acme, second.clone()));
        a.unwrap();
        assert_eq!(refused(b), ("executions", 1, 1));
        store.finish_execution(&acme, &id, ended("")).await.unwrap();
        store.record_execution(&acme, second).await.unwrap();
    });
    fixture.reopen();
    limited(&fixture, limits);
    block_on(async {
        let store = fixture.store();
        assert!(store.record_execution(&acme, execution(&sandbox, "3")).await.is_err());
        store.mark_executions_lost(&system(), 5, "gone").await.unwrap();
        store.record_execution(&acme, execution(&sandbox, "3")).await.unwrap();
    });
}

#[test]
fn external_lockers_count_and_so_do_their_sizes() {
    let fixture = Fixture::new();
    limited(&fixture, Limits::default().with(Quota::Lockers, 2).with(Quota::LockerMb, 100));
    let (store, acme) = (fixture.store(), tenant("acme"));
    block_on(async {
        let sized = |mb| NewLocker { size_limit_mb: mb, ..new_locker(1) };
        // A managed one counts with its sandbox, which has no quota here.
        store.create_sandbox(&acme, new_sandbox(1), managed(1)).await.unwrap();
        assert_eq!(refused(store.create_locker(&acme, sized(None)).await), ("locker_mb", 100, 0));
        let first = store.create_locker(&acme, sized(Some(60))).await.unwrap();
        assert_eq!(refused(store.create_locker(&acme, sized(Some(41))).await), ("locker_mb", 100, 60));
        store.create_locker(&acme, sized(Some(40))).await.unwrap();
        assert_eq!(refused(store.create_locker(&acme, sized(Some(1))).await), ("lockers", 2, 2));
        store.delete_locker(&acme, &first.id, 2).await.unwrap();
        store.create_locker(&acme, sized(Some(60))).await.unwrap();
        assert_eq!((used(store, Quota::Lockers).await, used(store, Quota::LockerMb).await), (2, 100));
    });
}

#[test]
fn the_bytes_of_the_history_are_those_of_its_rows() {
    let fixture = Fixture::new();
    limited(&fixture, Limits::default().with(Quota::HistoryBytes, 4000));
    let (store, acme) = (fixture.store(), tenant("acme"));
    let counted = || async {
        let rows: u64 = store
            .write(&acme, |db| {
                Ok(db.query_row(
                    "SELECT coalesce(sum(coalesce(octet_length(code), 0) + coalesce(octet_length(output), 0) \
                     + coalesce(octet_length(error), 0) + coalesce(octet_length(result), 0)), 0) FROM executions \
                     WHERE tenant = 'acme'",
                    [],
                    |row| row.get(0),
                )?)
            })
            .await
            .unwrap();
        assert_eq!(used(store, Quota::HistoryBytes).await, rows);
        rows
    };
    block_on(async {
        let new = new_sandbox(1);
        let sandbox = new.id.clone();
        store.create_sandbox(&acme, new, managed(1)).await.unwrap();
        assert_eq!(counted().await, 0);
        let mut kept = 0;
        loop {
            // Characters of more than a byte: bytes are what is kept.
            let next = execution(&sandbox, &"ä".repeat(100));
            let id = next.id.clone();
            match store.record_execution(&acme, next).await {
                Ok(()) => kept += 1,
                Err(error) => {
                    assert_eq!(refused::<()>(Err(error)), ("history_bytes", 4000, counted().await));
                    break;
                }
            }
            store.finish_execution(&acme, &id, ended(&"x".repeat(300))).await.unwrap();
            counted().await;
        }
        assert!((3..10).contains(&kept), "{kept}");
        let limits = HistoryLimits { before: 0, per_sandbox: 1 };
        assert_eq!(store.prune_executions(&system(), limits).await.unwrap(), kept - 1);
        assert!(counted().await > 0);
        store.record_execution(&acme, execution(&sandbox, "1")).await.unwrap();
        store.delete_sandbox(&acme, &sandbox, 3).await.unwrap();
        assert_eq!(counted().await, 0);
    });
}
