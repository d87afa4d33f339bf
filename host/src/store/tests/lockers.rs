//! Lockers by themselves, what serves their files, and the audit log.

use super::*;

fn labelled(at: Millis, name: Option<&str>, labels: &[(&str, &str)]) -> NewLocker {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    NewLocker { name: name.map(str::to_owned), labels, ..new_locker(at) }
}

#[test]
fn lockers_are_listed_by_kind_and_label_and_changed() {
    let fixture = Fixture::new();
    let (store, owner) = (fixture.store(), tenant("a"));
    block_on(async {
        let one = labelled(1, Some("one"), &[("x", "1")]);
        let two = labelled(2, None, &[("x", "1"), ("y", "2")]);
        for new in [&one, &two] {
            store.create_locker(&owner, new.clone(), None).await.unwrap();
        }
        let managed = LockerChoice::Managed(new_locker(3));
        let (sandbox, own) = store.create_sandbox(&owner, new_sandbox(3), managed).await.unwrap();
        let ids = async |filter: LockerFilter| -> Vec<String> {
            let listing = store.list_lockers(&owner, filter, Page::first(50)).await.unwrap();
            listing.items.into_iter().map(|row| row.id).collect()
        };
        assert_eq!(ids(LockerFilter::default()).await, [two.id.clone(), one.id.clone()]);
        assert_eq!(
            ids(LockerFilter { managed: true, ..Default::default() }).await,
            std::slice::from_ref(&own.id)
        );
        let labels = BTreeMap::from([("y".to_owned(), "2".to_owned())]);
        assert_eq!(ids(LockerFilter { managed: false, labels }).await, std::slice::from_ref(&two.id));

        let taken = LockerChange { name: Some(Some("one".to_owned())), ..Default::default() };
        let refused = store.update_locker(&owner, &two.id, taken.clone()).await;
        assert_eq!(conflict(refused), Conflict::NameTaken);
        store.update_locker(&owner, &one.id, taken).await.expect("its own name");
        let more = LockerChange {
            labels: BTreeMap::from([("z".to_owned(), Some("3".to_owned())), ("x".to_owned(), None)]),
            ..Default::default()
        };
        let changed = store.update_locker(&owner, &two.id, more).await.unwrap();
        assert_eq!(changed.labels.into_keys().collect::<Vec<_>>(), ["y", "z"]);
        let many = LockerChange {
            labels: (0..31).map(|n| (format!("w{n}"), Some("4".to_owned()))).collect(),
            ..Default::default()
        };
        assert!(matches!(
            store.update_locker(&owner, &two.id, many).await,
            Err(StoreError::TooLarge { field: "labels", max: 32 })
        ));
        assert!(store.update_locker(&tenant("b"), &two.id, LockerChange::default()).await.is_err());
        let refused = store.delete_locker(&owner, &own.id, 4).await;
        assert_eq!(conflict(refused), Conflict::LockerManaged { sandbox_id: sandbox.id.clone() });
    });
}

#[test]
fn a_deleted_locker_is_known_for_a_while_to_its_owner_alone() {
    let fixture = Fixture::new();
    let (store, owner, other) = (fixture.store(), tenant("a"), tenant("b"));
    block_on(async {
        let locker = store.create_locker(&owner, new_locker(1), None).await.unwrap();
        store.delete_locker(&owner, &locker.id, 10).await.unwrap();
        store.finish_locker_removal(&system(), &locker.id).await.unwrap();
        store.delete_locker(&owner, &locker.id, 11).await.expect("again");
        assert!(matches!(
            store.delete_locker(&other, &locker.id, 11).await,
            Err(StoreError::NotFound { resource: "locker", .. })
        ));
        assert_eq!(store.purge_locker_tombstones(&system(), 10).await.unwrap(), 0);
        assert_eq!(store.purge_locker_tombstones(&system(), 11).await.unwrap(), 1);
        assert!(store.delete_locker(&owner, &locker.id, 12).await.is_err());
    });
}

#[test]
fn what_serves_a_lockers_files_is_nobodys_sandbox_and_ends_with_the_locker() {
    let fixture = Fixture::new();
    let (store, owner) = (fixture.store(), tenant("a"));
    block_on(async {
        let locker = store.create_locker(&owner, new_locker(1), None).await.unwrap();
        let taken = store.take_files_sandbox(&owner, &locker.id, "python-default", 2).await.unwrap();
        assert!(Kind::Files.is(&taken.id));
        let again = store.take_files_sandbox(&owner, &locker.id, "shell-only", 3).await.unwrap();
        assert_eq!((&again.id, again.profile.as_str()), (&taken.id, "shell-only"));
        assert_eq!(store.get_locker(&owner, &locker.id).await.unwrap().last_accessed_at, 3);
        assert_eq!(store.last_profile_of_locker(&owner, &locker.id).await.unwrap(), None);
        assert!(store.get_sandbox(&owner, &taken.id).await.is_err());
        let all = store.list_sandboxes(&owner, SandboxFilter::default(), Page::first(50)).await.unwrap();
        assert!(all.items.is_empty());

        let session = store.begin_session(&owner, &taken.id, ship(), 4).await.unwrap();
        assert_eq!(store.list_files_sandboxes(&system()).await.unwrap().len(), 1);
        store.delete_locker(&owner, &locker.id, 5).await.unwrap();
        let live = store.live_session(&owner, &taken.id).await.unwrap().expect("it is still being removed");
        assert_eq!(live.state, SessionState::Stopping);
        assert!(store.list_pending_removals(&system()).await.unwrap().lockers.is_empty());
        store.transition_session(&owner, &session.key(), Transition::Ended, 6).await.unwrap();
        assert_eq!(store.list_pending_removals(&system()).await.unwrap().lockers.len(), 1);
        // Nothing starts on a locker that is about to go.
        assert!(store.begin_session(&owner, &taken.id, ship(), 7).await.is_err());
        assert!(store.take_files_sandbox(&owner, &locker.id, "shell-only", 8).await.is_err());
    });
}

#[test]
fn few_lockers_are_served_at_once() {
    let fixture = Fixture::new();
    let (store, owner) = (fixture.store(), tenant("a"));
    block_on(async {
        let mut refused = 0;
        for at in 0..6 {
            let locker = store.create_locker(&owner, new_locker(at), None).await.unwrap();
            let taken = store.take_files_sandbox(&owner, &locker.id, "p", at).await.unwrap();
            match store.begin_session(&owner, &taken.id, ship(), at).await {
                Ok(_) => {}
                Err(StoreError::Conflict(Conflict::FilesFull)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(refused, 2);
        let other = tenant("b");
        let locker = store.create_locker(&other, new_locker(9), None).await.unwrap();
        let taken = store.take_files_sandbox(&other, &locker.id, "p", 9).await.unwrap();
        store.begin_session(&other, &taken.id, ship(), 9).await.expect("another tenant's has room");
    });
}

#[test]
fn the_audit_log_is_filtered_finished_and_bounded() {
    let fixture = Fixture::new();
    let (store, owner) = (fixture.store(), tenant("a"));
    let entry = |at, action: &str, outcome: Option<&str>| NewAudit {
        at,
        key_id: Some("key_x".to_owned()),
        action: action.to_owned(),
        resource: Some("lkr_x".to_owned()),
        outcome: outcome.map(str::to_owned),
        detail: None,
        request_id: "r".to_owned(),
        client: Some("x".repeat(1000)),
    };
    block_on(async {
        let open = store.record_audit(&owner, entry(1, "locker.files.read", None)).await.unwrap();
        for at in 2..6 {
            store.record_audit(&tenant("b"), entry(at, "locker.delete", Some("ok"))).await.unwrap();
        }
        store.finish_audit(&owner, &open, "file_not_found").await.unwrap();
        let of = async |filter: AuditFilter| {
            store.list_audit(&system(), filter, Page::first(50)).await.unwrap().items
        };
        let own = of(AuditFilter { tenant: Some(owner.clone()), ..Default::default() }).await;
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].outcome.as_deref(), Some("file_not_found"));
        assert!(own[0].client.as_ref().is_some_and(|client| client.len() < 1000));
        let since = of(AuditFilter { since: Some(4), ..Default::default() }).await;
        assert_eq!(since.iter().map(|e| e.at).collect::<Vec<_>>(), [5, 4]);
        let named =
            of(AuditFilter { action: Some("locker.files.read".to_owned()), ..Default::default() }).await;
        assert_eq!(named.len(), 1);
        let first = store.list_audit(&system(), AuditFilter::default(), Page::first(2)).await.unwrap();
        let page = Page { limit: 2, cursor: first.next_cursor };
        let second = store.list_audit(&system(), AuditFilter::default(), page).await.unwrap();
        assert_eq!(second.items.iter().map(|e| e.at).collect::<Vec<_>>(), [3, 2]);

        assert_eq!(store.prune_audit(&system(), 2, 10).await.unwrap(), 1);
        // Whoever has the most gives, however old what others have.
        store.record_audit(&owner, entry(2, "key.revoke", Some("ok"))).await.unwrap();
        assert_eq!(store.prune_audit(&system(), 2, 3).await.unwrap(), 2);
        let kept = of(AuditFilter::default()).await;
        assert_eq!(kept.iter().map(|e| e.at).collect::<Vec<_>>(), [5, 4, 2]);
    });
}
