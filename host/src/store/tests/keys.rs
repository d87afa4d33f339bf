//! API keys.

use rusqlite::Connection;

use super::*;
use crate::auth::Scope;
use crate::auth::keys::ApiKey;

fn new_key(id: String, created_at: Millis) -> NewKey {
    NewKey {
        id,
        name: "first".to_owned(),
        hash: [7; 32],
        scopes: vec![Scope::LockersFiles, Scope::Admin],
        created_at,
        expires_at: None,
    }
}

#[test]
fn keys_are_found_by_id_and_revoked_once() {
    let mut fixture = Fixture::new();
    let owner = tenant("a");
    let key = ApiKey::mint().unwrap();
    block_on(async {
        let store = fixture.store();
        assert_eq!(store.count_keys(&system()).await.unwrap(), 0);
        let new = NewKey { hash: key.hash(), expires_at: Some(100), ..new_key(key.id(), 1) };
        let row = store.create_key(&owner, new.clone()).await.unwrap();
        assert_eq!(conflict(store.create_key(&owner, new).await), Conflict::IdTaken);
        assert!(row.is_valid(99) && !row.is_valid(100));
        assert_eq!(row.scopes, [Scope::Admin, Scope::LockersFiles], "sorted");
        assert!(!format!("{row:?}").contains("hash"));
    });
    fixture.reopen();
    block_on(async {
        let store = fixture.store();
        let row = store.find_key(&system(), &key.id()).await.unwrap();
        assert!(key.verify(row.as_ref().map(|row| &row.hash)));
        assert_eq!(row.unwrap().tenant, owner);
        assert!(store.find_key(&system(), &Kind::Key.mint()).await.unwrap().is_none());
        assert!(is_missing(&store.revoke_key(&system(), &Kind::Key.mint(), 5).await));
        assert_eq!(store.revoke_key(&system(), &key.id(), 5).await.unwrap().revoked_at, Some(5));
        let again = store.revoke_key(&system(), &key.id(), 6).await.unwrap();
        assert_eq!(again.revoked_at, Some(5));
        assert!(!again.is_valid(5));
        assert_eq!(store.count_keys(&system()).await.unwrap(), 1);
    });
}

#[test]
fn keys_are_listed_page_by_page_of_one_tenant_or_of_all() {
    let fixture = Fixture::new();
    let store = fixture.store();
    block_on(async {
        for n in 0..5 {
            let owner = tenant(if n % 2 == 0 { "a" } else { "b" });
            store.create_key(&owner, new_key(Kind::Key.mint(), n)).await.unwrap();
        }
        let page = |cursor| Page { limit: 2, cursor };
        let (mut cursor, mut times) = (None, Vec::new());
        loop {
            let listing = store.list_keys(&system(), None, page(cursor)).await.unwrap();
            times.extend(listing.items.iter().map(|key| key.created_at));
            cursor = listing.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(times, [4, 3, 2, 1, 0]);
        let of_b = store.list_keys(&system(), Some(tenant("b")), page(None)).await.unwrap();
        assert_eq!(of_b.items.iter().map(|key| key.created_at).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(of_b.next_cursor, None);
    });
}

#[test]
fn the_last_use_only_moves_on_and_only_for_its_owner() {
    let fixture = Fixture::new();
    let (store, owner) = (fixture.store(), tenant("a"));
    block_on(async {
        let id = store.create_key(&owner, new_key(Kind::Key.mint(), 1)).await.unwrap().id;
        for (tenant, at) in [(&owner, 9), (&owner, 7), (&tenant("b"), 11)] {
            store.key_used(tenant, &id, at).await.unwrap();
        }
        assert_eq!(store.find_key(&system(), &id).await.unwrap().unwrap().last_used_at, Some(9));
    });
}

/// Fills the table with keys of tenant `a`, made one a millisecond.
fn fill(fixture: &mut Fixture, count: i64, revoked_at: Option<Millis>) {
    fixture.store = None;
    let db = Connection::open(fixture.path().join(schema::FILE)).unwrap();
    db.execute(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1) \
         INSERT INTO api_keys (id, tenant, name, hash, scopes, created_at, revoked_at) \
         SELECT 'key_' || n, 'a', 'n', zeroblob(32), '[]', n, ?2 FROM n",
        (count, revoked_at),
    )
    .unwrap();
    drop(db);
    fixture.reopen();
}

#[test]
fn a_tenant_has_a_bound_on_valid_keys() {
    let mut fixture = Fixture::new();
    fill(&mut fixture, 1000, None);
    let store = fixture.store();
    block_on(async {
        let one_more =
            |owner| async move { store.create_key(&tenant(owner), new_key(Kind::Key.mint(), 2000)).await };
        assert_eq!(conflict(one_more("a").await), Conflict::TooManyKeys { limit: 1000, used: 1000 });
        one_more("b").await.unwrap();
        store.revoke_key(&system(), "key_1", 3).await.unwrap();
        one_more("a").await.unwrap();
    });
}

#[test]
fn the_oldest_of_very_many_ended_keys_are_forgotten() {
    let mut fixture = Fixture::new();
    fill(&mut fixture, 1100, Some(1500));
    let store = fixture.store();
    block_on(async {
        store.create_key(&tenant("a"), new_key(Kind::Key.mint(), 2000)).await.unwrap();
        assert_eq!(store.count_keys(&system()).await.unwrap(), 1001);
        assert!(store.find_key(&system(), "key_100").await.unwrap().is_none());
        assert!(store.find_key(&system(), "key_101").await.unwrap().is_some());
    });
}

#[test]
fn keys_made_before_there_was_a_scope_for_sandboxes_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(schema::FILE);
    {
        let db = Connection::open(&path).unwrap();
        db.execute_batch(include_str!("../migrations/0001_init.sql")).unwrap();
        db.pragma_update(None, "application_id", 0x4241_5931).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        for (id, scopes) in [("key_a", "[]"), ("key_b", "[\"admin\",\"ops\"]")] {
            db.execute(
                "INSERT INTO api_keys (id, tenant, name, hash, scopes, created_at) VALUES (?1, 'a', 'n', ?2, ?3, 1)",
                (id, [0u8; 32], scopes),
            )
            .unwrap();
        }
    }
    let store = Store::open(dir.path()).unwrap();
    block_on(async {
        let key = |id| store.find_key(&system(), id);
        assert_eq!(key("key_a").await.unwrap().unwrap().scopes, [Scope::Sandboxes]);
        let all = [Scope::Sandboxes, Scope::Admin, Scope::Ops];
        assert_eq!(key("key_b").await.unwrap().unwrap().scopes, all);
    });
}
