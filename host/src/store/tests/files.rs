//! The file: its lock, its version, its owner, and what happens when it is damaged or the disk is full.

use std::os::unix::fs::{FileExt, PermissionsExt};

use rusqlite::Connection;

use super::*;

#[test]
fn a_second_bay_is_told_who_has_the_directory() {
    let mut fixture = Fixture::new();
    match Store::open(fixture.path()) {
        Err(error @ OpenError::Locked { holder, .. }) => {
            assert_eq!(holder, Some(std::process::id()));
            assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        }
        other => panic!("{other:?}"),
    }
    fixture.reopen();
}

#[test]
fn nobody_else_can_read_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    let store = Store::open(&data).unwrap();
    block_on(store.create_sandbox(&tenant("a"), new_sandbox(1), managed(1))).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        files += 1;
    }
    assert!(files >= 4, "lock, database, log and index: {files}");
}

#[test]
fn a_newer_database_is_refused_in_words_and_left_alone() {
    let mut fixture = Fixture::new();
    fixture.store = None;
    let path = fixture.path().join(schema::FILE);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 999).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = Store::open(fixture.path()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 999, .. }), "{error:?}");
    assert!(error.to_string().contains("version 999"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_of_another_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(schema::FILE);
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(Store::open(dir.path()), Err(OpenError::Foreign(_))));
}

#[test]
fn a_file_that_is_no_database_is_an_error_in_words() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(schema::FILE), "x".repeat(10_000)).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error:?}");
    assert!(error.to_string().contains("not a database"), "{error}");
}

#[test]
fn a_damaged_file_is_unavailable_and_never_a_panic() {
    let mut fixture = Fixture::new();
    let path = fixture.path().join(schema::FILE);
    fixture.store = None;
    let schema = path.metadata().unwrap().len();
    fixture.reopen();
    let owner = tenant("a");
    block_on(async {
        for n in 0..200 {
            fixture.store().create_sandbox(&owner, new_sandbox(n), managed(n)).await.unwrap();
        }
    });
    fixture.store = None;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let size = file.metadata().unwrap().len();
    // Everything after the schema.
    let garbage = vec![0xa5; usize::try_from(size - schema).unwrap()];
    file.write_all_at(&garbage, schema).unwrap();
    let store = Store::open(fixture.path()).unwrap();
    let answer = block_on(async {
        let mut answers =
            vec![store.list_sandboxes(&owner, SandboxFilter::default(), Page::first(200)).await.err()];
        for n in 0..50 {
            answers.push(store.create_sandbox(&owner, new_sandbox(n), managed(n)).await.err());
        }
        answers
    });
    let errors: Vec<_> = answer.into_iter().flatten().collect();
    assert!(!errors.is_empty());
    for error in errors {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    }
}

#[test]
fn a_full_disk_is_unavailable_and_what_was_answered_stays() {
    let mut fixture = Fixture::new();
    let owner = tenant("a");
    let mut kept = Vec::new();
    block_on(async {
        let store = fixture.store();
        store
            .write(&owner, |db| {
                let pages: u32 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
                // As a full disk does: SQLITE_FULL at the first page more.
                db.pragma_update_and_check(None, "max_page_count", pages + 8, |_| Ok(()))?;
                Ok(())
            })
            .await
            .unwrap();
        let mut refused = 0;
        for n in 0..100 {
            let mut new = new_sandbox(n);
            new.labels.insert("pad".to_owned(), "x".repeat(2000));
            match store.create_sandbox(&owner, new, managed(n)).await {
                Ok((row, _)) => kept.push(row.id),
                Err(StoreError::Unavailable { reason }) => {
                    assert!(reason.contains("full"), "{reason}");
                    refused += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(!kept.is_empty() && refused > 0, "{} kept, {refused} refused", kept.len());
        // Reads go on.
        for id in &kept {
            store.get_sandbox(&owner, id).await.unwrap();
        }
    });
    fixture.reopen();
    block_on(async {
        for id in &kept {
            fixture.store().get_sandbox(&owner, id).await.unwrap();
        }
        fixture.store().create_sandbox(&owner, new_sandbox(1), managed(1)).await.unwrap();
    });
}
