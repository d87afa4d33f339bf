//! Each table's own rules.

use super::*;

#[test]
fn a_sandbox_reads_back_as_it_was_made_and_only_for_its_owner() {
    let mut fixture = Fixture::new();
    let owner = tenant("acme");
    let mut new = new_sandbox(1000);
    new.name = Some("mine".to_owned());
    new.labels.insert("k".to_owned(), "v".to_owned());
    new.env.0.insert("TOKEN".to_owned(), "s3cret".to_owned());
    new.expires_at = Some(5000);
    let id = new.id.clone();
    let (made, locker) = block_on(fixture.store().create_sandbox(&owner, new, managed(1000))).unwrap();
    assert_eq!(made.capabilities, ["python", "shell"], "sorted");
    assert_eq!((made.session_seq, made.generation, made.last_active_at), (0, 0, 1000));
    assert_eq!(locker.managed_by.as_deref(), Some(id.as_str()));
    assert_eq!(locker.backend_ref, None);
    fixture.reopen();
    block_on(async {
        assert_eq!(fixture.store().get_sandbox(&owner, &id).await.unwrap(), made);
        assert!(is_missing(&fixture.store().get_sandbox(&tenant("other"), &id).await));
        assert!(is_missing(&fixture.store().get_locker(&tenant("other"), &locker.id).await));
        assert!(is_missing(&fixture.store().delete_sandbox(&tenant("other"), &id, 1).await));
        assert!(is_missing(&fixture.store().touch_sandbox(&tenant("other"), &id, 1, None).await));
        assert!(is_missing(&fixture.store().begin_session(&tenant("other"), &id, ship(), 1).await));
    });
    let shown = format!("{made:?}");
    assert!(shown.contains("TOKEN") && !shown.contains("s3cret"), "{shown}");
    assert_eq!(made.status(4999), SandboxStatus::Idle);
    assert_eq!(made.status(5000), SandboxStatus::Expired);
}

#[test]
fn a_sandbox_and_its_locker_are_made_together_or_not_at_all() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    block_on(async {
        let first = new_sandbox(1);
        store.create_sandbox(&owner, first.clone(), managed(1)).await.unwrap();
        let locker = new_locker(2);
        let locker_id = locker.id.clone();
        let again = store.create_sandbox(&owner, first, LockerChoice::Managed(locker)).await;
        assert_eq!(conflict(again), Conflict::IdTaken);
        assert!(is_missing(&store.get_locker(&owner, &locker_id).await));
    });
}

#[test]
fn external_lockers_are_shared_within_a_tenant_and_kept() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (owner, other) = (tenant("a"), tenant("b"));
    block_on(async {
        let named = NewLocker { name: Some("data".to_owned()), ..new_locker(1) };
        let locker = store.create_locker(&owner, named.clone(), None).await.unwrap();
        let twin = NewLocker { id: Kind::Locker.mint(), ..named.clone() };
        assert_eq!(conflict(store.create_locker(&owner, twin.clone(), None).await), Conflict::NameTaken);
        store.create_locker(&other, twin, None).await.unwrap();

        let by_id = LockerChoice::Existing(locker.id.clone());
        let by_name = LockerChoice::Named("data".to_owned());
        let (one, _) = store.create_sandbox(&owner, new_sandbox(2), by_id.clone()).await.unwrap();
        let (two, used) = store.create_sandbox(&owner, new_sandbox(3), by_name).await.unwrap();
        assert_eq!(
            (one.locker_id.as_str(), two.locker_id.as_str()),
            (locker.id.as_str(), locker.id.as_str())
        );
        assert_eq!(used.last_accessed_at, 3);
        assert!(is_missing(&store.create_sandbox(&other, new_sandbox(4), by_id).await));
        let nowhere = LockerChoice::Named("nope".to_owned());
        assert!(is_missing(&store.create_sandbox(&owner, new_sandbox(4), nowhere).await));

        let (lone, mine) = store.create_sandbox(&owner, new_sandbox(5), managed(5)).await.unwrap();
        let stolen =
            store.create_sandbox(&owner, new_sandbox(6), LockerChoice::Existing(mine.id.clone())).await;
        assert_eq!(conflict(stolen), Conflict::LockerManaged { sandbox_id: lone.id.clone() });
        assert_eq!(
            conflict(store.delete_locker(&owner, &mine.id, 7).await),
            Conflict::LockerManaged { sandbox_id: lone.id }
        );

        let mut users = vec![one.id.clone(), two.id.clone()];
        users.sort();
        assert_eq!(
            conflict(store.delete_locker(&owner, &locker.id, 7).await),
            Conflict::LockerInUse { sandbox_ids: users }
        );
        for id in [&one.id, &two.id] {
            let deleted = store.delete_sandbox(&owner, id, 8).await.unwrap();
            assert!(deleted.locker.is_none(), "an external locker outlives its sandboxes");
        }
        assert_eq!(store.delete_locker(&owner, &locker.id, 9).await.unwrap().deleted_at, Some(9));
        assert!(is_missing(&store.get_locker(&owner, &locker.id).await));
        // The name is free again before the volume is gone.
        store.create_locker(&owner, NewLocker { id: Kind::Locker.mint(), ..named }, None).await.unwrap();
        let pending = store.list_pending_removals(&system()).await.unwrap();
        assert_eq!(pending.lockers.iter().map(|l| &l.id).collect::<Vec<_>>(), [&locker.id]);
    });
}

#[test]
fn the_volume_of_a_locker_is_noted_once() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    block_on(async {
        let (_, locker) = store.create_sandbox(&owner, new_sandbox(1), managed(1)).await.unwrap();
        let noted = store.set_locker_volume(&owner, &locker.id, "/lockers/x", 5).await.unwrap();
        assert_eq!((noted.backend_ref.as_deref(), noted.last_accessed_at), (Some("/lockers/x"), 5));
        store.set_locker_volume(&owner, &locker.id, "/lockers/x", 6).await.unwrap();
        assert_eq!(conflict(store.set_locker_volume(&owner, &locker.id, "/y", 7).await), Conflict::Stale);
    });
}

#[test]
fn lists_are_newest_first_and_stable_while_rows_come_and_go() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    block_on(async {
        let mut ids = Vec::new();
        for n in 0..7 {
            // Several in one millisecond: the id decides.
            let (row, _) = store.create_sandbox(&owner, new_sandbox(n / 3), managed(n)).await.unwrap();
            ids.push((row.created_at, row.id));
        }
        store.create_sandbox(&tenant("b"), new_sandbox(1), managed(1)).await.unwrap();
        ids.sort();
        ids.reverse();
        let expected: Vec<_> = ids.into_iter().map(|(_, id)| id).collect();
        let mut seen = Vec::new();
        let mut page = Page::first(3);
        loop {
            let listing = store.list_sandboxes(&owner, SandboxFilter::default(), page.clone()).await.unwrap();
            assert!(listing.items.len() <= 3);
            seen.extend(listing.items.into_iter().map(|row| row.id));
            // A newer one in between is on no later page.
            store.create_sandbox(&owner, new_sandbox(100), managed(100)).await.unwrap();
            match listing.next_cursor {
                Some(cursor) => page.cursor = Some(Cursor::decode(&cursor.encode()).unwrap()),
                None => break,
            }
        }
        assert_eq!(seen, expected);
    });
}

#[test]
fn lists_are_narrowed_by_profile_labels_and_status() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    block_on(async {
        let mut ids = BTreeMap::new();
        for (name, profile, labels, expires_at) in [
            ("plain", "p", &[][..], None),
            ("odd", "p", &[("a\"b.$[0]", "1"), ("x", "2")], None),
            ("other", "q", &[("x", "2")], None),
            ("old", "q", &[], Some(10)),
        ] {
            let mut new = NewSandbox { profile: profile.to_owned(), expires_at, ..new_sandbox(1) };
            new.labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            ids.insert(new.id.clone(), name);
            store.create_sandbox(&owner, new, managed(1)).await.unwrap();
        }
        let id_of = |name: &str| ids.iter().find(|(_, n)| **n == name).unwrap().0.clone();
        let session = store.begin_session(&owner, &id_of("odd"), ship(), 2).await.unwrap();
        store.transition_session(&owner, &session.key(), Transition::Ready, 3).await.unwrap();
        store.begin_session(&owner, &id_of("other"), ship(), 2).await.unwrap();
        store.set_failure(&owner, &id_of("plain"), failure(4)).await.unwrap();
        let list = async |filter: SandboxFilter| {
            let rows = store.list_sandboxes(&owner, filter, Page::first(50)).await.unwrap().items;
            let mut names: Vec<_> = rows.iter().map(|row| ids[&row.id]).collect();
            names.sort();
            names
        };
        let labels = |list: &[(&str, &str)]| SandboxFilter {
            labels: list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..SandboxFilter::default()
        };
        assert_eq!(list(SandboxFilter::default()).await, ["odd", "old", "other", "plain"]);
        let of_q = SandboxFilter { profile: Some("q".to_owned()), ..SandboxFilter::default() };
        assert_eq!(list(of_q).await, ["old", "other"]);
        assert_eq!(list(labels(&[("x", "2")])).await, ["odd", "other"]);
        assert_eq!(list(labels(&[("x", "2"), ("a\"b.$[0]", "1")])).await, ["odd"]);
        assert_eq!(list(labels(&[("x", "%")])).await, [""; 0]);
        // The filter says what the rows say.
        let rows =
            store.list_sandboxes(&owner, SandboxFilter::default(), Page::first(50)).await.unwrap().items;
        for status in ["idle", "starting", "ready", "stopping", "failed", "expired"] {
            let status = SandboxStatus::parse(status).unwrap();
            let filter = SandboxFilter { status: Some((status, 100)), ..SandboxFilter::default() };
            let mut expected: Vec<_> =
                rows.iter().filter(|row| row.status(100) == status).map(|row| ids[&row.id]).collect();
            expected.sort();
            assert_eq!(list(filter).await, expected, "{status:?}");
        }
    });
}

#[test]
fn a_session_lives_through_its_states_and_no_other_way() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    block_on(async {
        let (sandbox, _) = store.create_sandbox(&owner, new_sandbox(1), managed(1)).await.unwrap();
        let session = store.begin_session(&owner, &sandbox.id, ship(), 2).await.unwrap();
        assert_eq!((session.seq, session.generation, session.state), (1, 1, SessionState::Starting));
        let [container] = &session.containers[..] else { panic!("one container") };
        assert_eq!(container.name, crate::id::container_name(&session.id, 1, "ship"));
        assert_eq!(container.container_ref, None);
        let again = store.begin_session(&owner, &sandbox.id, ship(), 3).await;
        assert_eq!(conflict(again), Conflict::SessionLive);

        let mut containers = session.containers.clone();
        containers[0].container_ref = Some(serde_json::json!({ "pid": 7 }));
        store.set_session_containers(&owner, &session.key(), containers.clone()).await.unwrap();
        containers[0].name = "bay-somebody-else".to_owned();
        assert!(store.set_session_containers(&owner, &session.key(), containers).await.is_err());
        let row = store.find_container(&system(), &container.name).await.unwrap().unwrap();
        assert_eq!(row.containers[0].container_ref, Some(serde_json::json!({ "pid": 7 })));
        for stranger in
            ["", "bay-ses-", "bay-ses-../../x", "docker-thing", &container.name.replace("-1-", "-2-")]
        {
            assert!(store.find_container(&system(), stranger).await.unwrap().is_none(), "{stranger}");
        }

        let stale = SessionKey { generation: 2, ..session.key() };
        assert_eq!(
            conflict(store.transition_session(&owner, &stale, Transition::Ready, 4).await),
            Conflict::Stale
        );
        assert_eq!(
            conflict(store.transition_session(&owner, &session.key(), Transition::Ended, 4).await),
            Conflict::Stale
        );
        store.transition_session(&owner, &session.key(), Transition::Ready, 4).await.unwrap();
        store.touch_sandbox(&owner, &sandbox.id, 5, Some(500)).await.unwrap();
        store.touch_sandbox(&owner, &sandbox.id, 4, Some(400)).await.unwrap();
        let row = store.get_sandbox(&owner, &sandbox.id).await.unwrap();
        assert_eq!((row.last_active_at, row.idle_expires_at), (5, Some(500)), "never backwards");
        assert_eq!(store.list_idle_sandboxes(&system(), 499).await.unwrap(), []);
        assert_eq!(store.list_idle_sandboxes(&system(), 500).await.unwrap(), [row]);

        let lost =
            store.transition_session(&owner, &session.key(), Transition::Lost(failure(6)), 6).await.unwrap();
        assert_eq!((lost.state, lost.ended_at, lost.cleaned_at), (SessionState::Lost, Some(6), None));
        let row = store.get_sandbox(&owner, &sandbox.id).await.unwrap();
        assert_eq!((row.status(7), row.idle_expires_at), (SandboxStatus::Failed, None));
        let pending = store.list_pending_removals(&system()).await.unwrap();
        assert_eq!(pending.sessions, std::slice::from_ref(&lost));

        // Tried again, with a higher number and generation; a good start clears the failure.
        let second = store.begin_session(&owner, &sandbox.id, ship(), 7).await.unwrap();
        assert_eq!((second.seq, second.generation), (2, 2));
        store.session_cleaned(&owner, &lost.key(), 8).await.unwrap();
        store.session_cleaned(&owner, &lost.key(), 9).await.unwrap();
        assert_eq!(conflict(store.session_cleaned(&owner, &second.key(), 9).await), Conflict::Stale);
        store.transition_session(&owner, &second.key(), Transition::Ready, 9).await.unwrap();
        let row = store.get_sandbox(&owner, &sandbox.id).await.unwrap();
        assert_eq!((row.status(9), row.failure.clone(), row.session_seq), (SandboxStatus::Ready, None, 2));

        let stopping = Transition::Stopping { reason: "asked to".to_owned() };
        store.transition_session(&owner, &second.key(), stopping, 10).await.unwrap();
        let ended = store.transition_session(&owner, &second.key(), Transition::Ended, 11).await.unwrap();
        assert_eq!((ended.reason.as_deref(), ended.cleaned_at), (Some("asked to"), Some(11)));
        assert!(store.list_live_sessions(&system()).await.unwrap().is_empty());
        assert!(store.list_pending_removals(&system()).await.unwrap().sessions.is_empty());
    });
}

#[test]
fn one_of_many_callers_begins_a_session() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    block_on(async {
        let (sandbox, _) = store.create_sandbox(&owner, new_sandbox(1), managed(1)).await.unwrap();
        let begin = || store.begin_session(&owner, &sandbox.id, ship(), 2);
        let (a, b, c, d) = tokio::join!(begin(), begin(), begin(), begin());
        let won = [&a, &b, &c, &d].iter().filter(|r| r.is_ok()).count();
        assert_eq!(won, 1, "{a:?} {b:?} {c:?} {d:?}");
        assert_eq!(store.list_live_sessions(&system()).await.unwrap().len(), 1);
    });
}

#[test]
fn an_expired_sandbox_starts_nothing() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    block_on(async {
        let new = NewSandbox { expires_at: Some(10), ..new_sandbox(1) };
        let (sandbox, _) = store.create_sandbox(&owner, new, managed(1)).await.unwrap();
        assert_eq!(store.list_expired_sandboxes(&system(), 9).await.unwrap().len(), 0);
        assert_eq!(store.list_expired_sandboxes(&system(), 10).await.unwrap().len(), 1);
        let late = store.begin_session(&owner, &sandbox.id, ship(), 10).await;
        assert_eq!(conflict(late), Conflict::Expired { expires_at: 10 });
        store.begin_session(&owner, &sandbox.id, ship(), 9).await.unwrap();
    });
}

#[test]
fn deleting_says_what_is_left_and_a_start_under_way_cannot_finish() {
    let mut fixture = Fixture::new();
    let owner = tenant("a");
    let (id, session, locker) = block_on(async {
        let store = fixture.store();
        let mut new = new_sandbox(1);
        new.env.0.insert("TOKEN".to_owned(), "s3cret".to_owned());
        let (sandbox, locker) = store.create_sandbox(&owner, new, managed(1)).await.unwrap();
        let session = store.begin_session(&owner, &sandbox.id, ship(), 2).await.unwrap();
        let execution = new_execution(&sandbox.id, 3);
        let exe = execution.id.clone();
        store.record_execution(&owner, execution).await.unwrap();

        let deleted = store.delete_sandbox(&owner, &sandbox.id, 4).await.unwrap();
        assert!(!deleted.again);
        assert_eq!(deleted.session.as_ref().unwrap().state, SessionState::Stopping);
        assert_eq!(deleted.locker.as_ref().unwrap().id, locker.id);
        assert!(deleted.sandbox.env.0.is_empty(), "payloads are erased");
        assert!(is_missing(&store.get_sandbox(&owner, &sandbox.id).await));
        assert!(is_missing(&store.get_execution(&owner, &sandbox.id, &exe).await));
        let late = store.finish_execution(&owner, &exe, end(ExecutionStatus::Succeeded, 5)).await;
        assert!(is_missing(&late));
        assert!(is_missing(&store.record_execution(&owner, new_execution(&sandbox.id, 5)).await));
        let ready = store.transition_session(&owner, &session.key(), Transition::Ready, 5).await;
        assert_eq!(conflict(ready), Conflict::Stale);
        assert!(is_missing(&store.begin_session(&owner, &sandbox.id, ship(), 5).await));
        (sandbox.id, session, locker)
    });
    // Killed here: everything that is left is found again, the locker only after the session.
    fixture.reopen();
    block_on(async {
        let store = fixture.store();
        let again = store.delete_sandbox(&owner, &id, 6).await.unwrap();
        assert!(again.again && again.session.is_some() && again.locker.is_some());
        assert_eq!(again.sandbox.deleted_at, Some(4), "the first time stands");
        let pending = store.list_pending_removals(&system()).await.unwrap();
        assert_eq!((pending.sessions.len(), pending.lockers.len()), (1, 0));
        assert_eq!(store.purge_tombstones(&system(), 100).await.unwrap(), 0);
        store.transition_session(&owner, &session.key(), Transition::Ended, 7).await.unwrap();
        let pending = store.list_pending_removals(&system()).await.unwrap();
        assert_eq!((pending.sessions.len(), pending.lockers.len()), (0, 1));
        assert_eq!(store.purge_tombstones(&system(), 100).await.unwrap(), 0);
        store.finish_locker_removal(&system(), &locker.id).await.unwrap();
        store.finish_locker_removal(&system(), &locker.id).await.unwrap();
        assert!(store.delete_sandbox(&owner, &id, 8).await.unwrap().again, "while the tombstone stands");
        assert_eq!(store.purge_tombstones(&system(), 4).await.unwrap(), 0, "not before its time");
        assert_eq!(store.purge_tombstones(&system(), 5).await.unwrap(), 1);
        assert!(is_missing(&store.delete_sandbox(&owner, &id, 9).await));
        assert!(is_missing(&store.get_session(&owner, &session.id).await));
    });
}

#[test]
fn an_execution_is_an_intent_and_then_one_end() {
    let mut fixture = Fixture::new();
    let owner = tenant("a");
    let (sandbox_id, finished, running) = block_on(async {
        let store = fixture.store();
        let (sandbox, _) = store.create_sandbox(&owner, new_sandbox(1), managed(1)).await.unwrap();
        let (first, second) = (new_execution(&sandbox.id, 2), new_execution(&sandbox.id, 3));
        let (finished, running) = (first.id.clone(), second.id.clone());
        store.record_execution(&owner, first.clone()).await.unwrap();
        assert_eq!(conflict(store.record_execution(&owner, first).await), Conflict::IdTaken);
        store.record_execution(&owner, second).await.unwrap();
        let row = store.get_execution(&owner, &sandbox.id, &finished).await.unwrap();
        assert_eq!(
            (row.status, row.success, row.exec_type),
            (ExecutionStatus::Running, None, ExecType::Python)
        );

        let done = || end(ExecutionStatus::Succeeded, 4);
        assert!(is_missing(&store.finish_execution(&tenant("b"), &finished, done()).await));
        store.finish_execution(&owner, &finished, done()).await.unwrap();
        assert_eq!(conflict(store.finish_execution(&owner, &finished, done()).await), Conflict::Finished);
        assert!(store.finish_execution(&owner, &running, end(ExecutionStatus::Running, 4)).await.is_err());
        assert_eq!(store.get_sandbox(&owner, &sandbox.id).await.unwrap().last_active_at, 4);
        (sandbox.id, finished, running)
    });
    fixture.reopen();
    block_on(async {
        let store = fixture.store();
        assert_eq!(store.mark_executions_lost(&system(), 9, "Bay was restarted").await.unwrap(), 1);
        assert_eq!(store.mark_executions_lost(&system(), 9, "Bay was restarted").await.unwrap(), 0);
        let row = store.get_execution(&owner, &sandbox_id, &running).await.unwrap();
        assert_eq!((row.status, row.success, row.ended_at), (ExecutionStatus::Lost, Some(false), Some(9)));
        let row = store.get_execution(&owner, &sandbox_id, &finished).await.unwrap();
        assert_eq!(
            (row.status, row.success, row.kernel_seq),
            (ExecutionStatus::Succeeded, Some(true), Some(1))
        );
        assert_eq!(row.result, Some(serde_json::json!({ "success": true })));
        assert!(is_missing(&store.get_execution(&tenant("b"), &sandbox_id, &finished).await));
        let good = ExecutionFilter { success_only: true, ..ExecutionFilter::default() };
        let page = store.list_executions(&owner, &sandbox_id, good, Page::first(10)).await.unwrap();
        assert_eq!(page.items.iter().map(|e| &e.id).collect::<Vec<_>>(), [&finished]);
        let shell = ExecutionFilter { exec_type: Some(ExecType::Shell), ..ExecutionFilter::default() };
        assert!(
            store
                .list_executions(&owner, &sandbox_id, shell, Page::first(10))
                .await
                .unwrap()
                .items
                .is_empty()
        );
        assert!(is_missing(
            &store
                .list_executions(&tenant("b"), &sandbox_id, ExecutionFilter::default(), Page::first(10))
                .await
        ));
    });
}

#[test]
fn what_is_too_large_is_cut_dropped_or_refused() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    block_on(async {
        let (sandbox, _) = store.create_sandbox(&owner, new_sandbox(1), managed(1)).await.unwrap();
        let mut new = new_execution(&sandbox.id, 2);
        new.code = Some("ä".repeat(40_000));
        let id = new.id.clone();
        store.record_execution(&owner, new).await.unwrap();
        let mut done = end(ExecutionStatus::Succeeded, 3);
        done.output = Some("x".repeat(1 << 20));
        done.result = Some(serde_json::json!("x".repeat(5 << 20)));
        store.finish_execution(&owner, &id, done).await.unwrap();
        let row = store.get_execution(&owner, &sandbox.id, &id).await.unwrap();
        assert_eq!(row.code.unwrap().len(), 64 << 10);
        assert_eq!(row.output.unwrap().len(), 64 << 10);
        assert_eq!((row.result, row.result_dropped), (None, true));

        let mut huge = new_sandbox(4);
        huge.env.0.insert("A".to_owned(), "x".repeat(1 << 20));
        let refused = store.create_sandbox(&owner, huge, managed(4)).await;
        assert!(matches!(refused, Err(StoreError::TooLarge { field: "env", .. })), "{refused:?}");
        let long = NewSandbox { name: Some("n".repeat(257)), ..new_sandbox(4) };
        let refused = store.create_sandbox(&owner, long, managed(4)).await;
        assert!(matches!(refused, Err(StoreError::TooLarge { field: "name", max: 256 })), "{refused:?}");
    });
}

#[test]
fn history_is_pruned_by_age_and_number_but_never_what_runs() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    block_on(async {
        let (sandbox, _) = store.create_sandbox(&owner, new_sandbox(1), managed(1)).await.unwrap();
        let mut ids = Vec::new();
        for n in 0..10 {
            let new = new_execution(&sandbox.id, n);
            ids.push(new.id.clone());
            store.record_execution(&owner, new).await.unwrap();
            if n != 0 {
                store
                    .finish_execution(&owner, &ids[n as usize], end(ExecutionStatus::Failed, n))
                    .await
                    .unwrap();
            }
        }
        let limits = HistoryLimits {
            before: 3,
            per_sandbox: 5,
            sandbox_bytes: u64::MAX,
            tenant_bytes: u64::MAX,
            unlisted_before: 0,
        };
        assert_eq!(store.prune_executions(&system(), limits).await.unwrap(), 4);
        assert_eq!(store.prune_executions(&system(), limits).await.unwrap(), 0);
        let left =
            store.list_executions(&owner, &sandbox.id, ExecutionFilter::default(), Page::first(50)).await;
        let left: Vec<_> = left.unwrap().items.into_iter().map(|e| e.created_at).collect();
        assert_eq!(left, [9, 8, 7, 6, 5, 0]);
    });
}

#[test]
fn a_deleted_sandbox_with_a_long_history_is_erased_piece_by_piece() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    block_on(async {
        let (sandbox, locker) = store.create_sandbox(&owner, new_sandbox(1), managed(1)).await.unwrap();
        store
            .write(&owner, {
                let (owner, id) = (owner.clone(), sandbox.id.clone());
                move |db| {
                    Ok(db.execute(
                        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) \
                         INSERT INTO executions (id, tenant, sandbox_id, exec_type, capability, operation, status, \
                         plugin, plugin_digest, created_at) \
                         SELECT 'exe_' || i, ?1, ?2, 'shell', 'shell', 'exec', 'failed', 'p', 'd', i FROM n",
                        (&owner, &id),
                    )?)
                }
            })
            .await
            .unwrap();
        store.delete_sandbox(&owner, &sandbox.id, 2).await.unwrap();
        store.finish_locker_removal(&system(), &locker.id).await.unwrap();
        assert_eq!(store.purge_tombstones(&system(), 10).await.unwrap(), 0, "its history is still there");
        let mut erased = Vec::new();
        loop {
            match store.erase_deleted_executions(&system()).await.unwrap() {
                0 => break,
                n => erased.push(n),
            }
        }
        assert_eq!(erased, [500, 200]);
        assert_eq!(store.purge_tombstones(&system(), 10).await.unwrap(), 1);
    });
}
