//! A key makes one thing, whatever happens between the requests that carry it.

use super::*;

fn claim(key: &str, hash: u8, at: Millis) -> Claim {
    Claim { method: "POST".into(), path: "/v1/sandboxes".into(), key: key.into(), hash: [hash; 32], at }
}

fn claimed(key: &str, hash: u8) -> NewSandbox {
    NewSandbox { claim: Some(claim(key, hash, 1)), ..new_sandbox(1) }
}

async fn count(store: &Store, owner: &Tenant) -> usize {
    store.list_sandboxes(owner, SandboxFilter::default(), Page::first(200)).await.unwrap().items.len()
}

#[test]
fn a_key_that_was_never_answered_resumes_what_it_made_even_after_a_restart() {
    let mut fixture = Fixture::new();
    let owner = tenant("a");
    let key = claim("k", 1, 1);
    let made = block_on(async {
        let store = fixture.store();
        assert_eq!(store.find_claim(&owner, &key).await.unwrap(), Claimed::New);
        store.create_sandbox(&owner, claimed("k", 1), managed(1)).await.unwrap().0
    });
    // The Bay that made it died before it could answer.
    fixture.reopen();
    block_on(async {
        let store = fixture.store();
        let resume = Claimed::Resume { resource_id: made.id.clone() };
        assert_eq!(store.find_claim(&owner, &key).await.unwrap(), resume);
        let (again, locker) = store.create_sandbox(&owner, claimed("k", 1), managed(2)).await.unwrap();
        assert_eq!((again.id, locker.id), (made.id.clone(), made.locker_id.clone()));
        assert_eq!(count(store, &owner).await, 1);

        store.answer_claim(&owner, &key, 201, b"{\"id\": 1}".to_vec()).await.unwrap();
        store.answer_claim(&owner, &key, 201, b"another".to_vec()).await.unwrap();
    });
    fixture.reopen();
    block_on(async {
        let answered = fixture.store().find_claim(&owner, &key).await.unwrap();
        assert_eq!(answered, Claimed::Replay { status: 201, body: b"{\"id\": 1}".to_vec() });
    });
}

#[test]
fn another_body_is_refused_and_another_tenant_path_or_key_is_another_request() {
    let fixture = Fixture::new();
    let (store, owner) = (fixture.store(), tenant("a"));
    block_on(async {
        store.create_sandbox(&owner, claimed("k", 1), managed(1)).await.unwrap();
        assert_eq!(store.find_claim(&owner, &claim("k", 2, 1)).await.unwrap(), Claimed::Mismatch);
        let other = store.create_sandbox(&owner, claimed("k", 2), managed(1)).await;
        assert_eq!(conflict(other), Conflict::KeyReused);
        assert_eq!(store.find_claim(&tenant("b"), &claim("k", 1, 1)).await.unwrap(), Claimed::New);
        assert_eq!(store.find_claim(&owner, &claim("l", 1, 1)).await.unwrap(), Claimed::New);
        let elsewhere = Claim { path: "/v1/lockers".into(), ..claim("k", 1, 1) };
        assert_eq!(store.find_claim(&owner, &elsewhere).await.unwrap(), Claimed::New);
        assert_eq!(count(store, &owner).await, 1);
    });
}

#[test]
fn a_request_that_made_nothing_leaves_its_key_free() {
    let fixture = Fixture::new();
    let (store, owner) = (fixture.store(), tenant("a"));
    block_on(async {
        let nowhere = LockerChoice::Named("nowhere".to_owned());
        assert!(is_missing(&store.create_sandbox(&owner, claimed("k", 1), nowhere).await));
        assert_eq!(store.find_claim(&owner, &claim("k", 1, 1)).await.unwrap(), Claimed::New);
        store.create_sandbox(&owner, claimed("k", 2), managed(1)).await.unwrap();
    });
}

#[test]
fn a_key_whose_sandbox_was_deleted_says_so_and_makes_no_other() {
    let fixture = Fixture::new();
    let (store, owner) = (fixture.store(), tenant("a"));
    block_on(async {
        let (made, _) = store.create_sandbox(&owner, claimed("k", 1), managed(1)).await.unwrap();
        store.delete_sandbox(&owner, &made.id, 2).await.unwrap();
        assert!(is_missing(&store.create_sandbox(&owner, claimed("k", 1), managed(1)).await));
        assert_eq!(count(store, &owner).await, 0);
    });
}

#[test]
fn old_keys_go_and_a_large_answer_is_not_kept() {
    let fixture = Fixture::new();
    let (store, owner) = (fixture.store(), tenant("a"));
    block_on(async {
        for at in 0..4 {
            let key = format!("k{at}");
            let new = NewSandbox { claim: Some(claim(&key, 1, at)), ..new_sandbox(at) };
            store.create_sandbox(&owner, new, managed(at)).await.unwrap();
            store.answer_claim(&owner, &claim(&key, 1, at), 201, vec![b'x'; 300 << 10]).await.unwrap();
        }
        let kept = store.find_claim(&owner, &claim("k3", 1, 3)).await.unwrap();
        assert!(matches!(kept, Claimed::Resume { .. }), "{kept:?}");
        assert_eq!(store.prune_claims(&system(), 3).await.unwrap(), 3);
        assert_eq!(store.prune_claims(&system(), 3).await.unwrap(), 0);
        assert_eq!(store.find_claim(&owner, &claim("k2", 1, 2)).await.unwrap(), Claimed::New);
        assert_eq!(store.prune_claims(&system(), Millis::MAX).await.unwrap(), 1);
        // The count of what a tenant has follows by itself.
        let rows = store
            .read(&system(), |db| {
                Ok(db.query_row("SELECT count(*) FROM idempotency_use", [], |row| row.get::<_, u32>(0))?)
            })
            .await;
        assert_eq!(rows.unwrap(), 0);
    });
}
