//! What a question may take: in time, and in what its answer holds.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn a_question_without_end_is_ended_and_the_next_is_answered() {
    let fixture = Fixture::new();
    let (store, acme) = (fixture.store(), tenant("acme"));
    block_on(async {
        let began = Instant::now();
        let endless = async || {
            let counted = |db: &rusqlite::Connection| {
                let all =
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
                Ok(db.query_row(all, [], |row| row.get::<_, i64>(0))?)
            };
            store.read(&acme, counted).await
        };
        // One for each reader: all of them come back.
        let (one, two) = tokio::join!(endless(), endless());
        for ended in [one, two] {
            assert!(matches!(ended, Err(StoreError::TooSlow)), "{ended:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        let one = store.read(&acme, |db| Ok(db.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))?)).await;
        assert_eq!(one.unwrap(), 1);
    });
}

#[test]
fn a_page_of_history_ends_where_it_grows_large_and_none_is_passed_over() {
    let fixture = Fixture::new();
    let (store, acme) = (fixture.store(), tenant("acme"));
    block_on(async {
        let sandbox = new_sandbox(1);
        let id = sandbox.id.clone();
        store.create_sandbox(&acme, sandbox, managed(1)).await.unwrap();
        let mut made = Vec::new();
        for at in 2..72 {
            let new = NewExecution { code: Some("c".repeat(64 << 10)), ..new_execution(&id, at) };
            made.insert(0, new.id.clone());
            let execution = new.id.clone();
            store.record_execution(&acme, new).await.unwrap();
            let output = Some("o".repeat(64 << 10));
            let ended = FinishExecution { output, ..end(ExecutionStatus::Succeeded, at) };
            store.finish_execution(&acme, &execution, ended).await.unwrap();
        }
        let (mut seen, mut page) = (Vec::new(), Page::first(200));
        loop {
            let listing =
                store.list_executions(&acme, &id, ExecutionFilter::default(), page.clone()).await.unwrap();
            assert!((1..=33).contains(&listing.items.len()), "{}", listing.items.len());
            seen.extend(listing.items.into_iter().map(|row| row.id));
            let Some(cursor) = listing.next_cursor else { break };
            page.cursor = Some(cursor);
        }
        assert_eq!(seen, made);
    });
}
