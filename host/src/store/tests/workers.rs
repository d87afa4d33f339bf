//! The threads: one bad job harms no other, and answers mean what they say.

use super::*;

#[test]
fn a_write_that_fails_leaves_no_trace_and_harms_no_other_in_its_batch() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let owner = tenant("a");
    let (good, bad) = (new_sandbox(1), new_sandbox(2));
    let (good_id, bad_id) = (good.id.clone(), bad.id.clone());
    block_on(async {
        // Joined, they wait together and share a transaction.
        let (first, failed, panicked, last) = tokio::join!(
            store.create_sandbox(&owner, good, managed(1)),
            store.write(&owner, {
                let (owner, bad_id) = (owner.clone(), bad_id.clone());
                move |db| {
                    db.execute(
                        "INSERT INTO sandboxes (id, tenant, profile, locker_id, labels, env, capabilities, \
                         created_at, last_active_at) VALUES (?1, ?2, 'p', 'l', '{}', '{}', '[]', 1, 1)",
                        (&bad_id, &owner),
                    )?;
                    Err::<(), _>(Conflict::Stale.into())
                }
            }),
            store.write(&owner, |_| -> Result<(), StoreError> { panic!("a bug in a query") }),
            store.touch_sandbox(&owner, &good_id, 9, None),
        );
        first.unwrap();
        assert_eq!(conflict(failed), Conflict::Stale);
        assert!(matches!(panicked, Err(StoreError::Unavailable { .. })));
        last.unwrap();
        assert!(is_missing(&store.get_sandbox(&owner, &bad_id).await));
        assert_eq!(store.get_sandbox(&owner, &good_id).await.unwrap().last_active_at, 9);
    });
}

#[test]
fn a_write_runs_even_when_its_caller_is_gone() {
    let mut fixture = Fixture::new();
    let owner = tenant("a");
    let new = new_sandbox(1);
    let id = new.id.clone();
    block_on(async {
        let call = fixture.store().create_sandbox(&owner, new, managed(1));
        // Polled once: it is queued; then dropped.
        assert!(futures_poll_once(call).await.is_none());
    });
    fixture.reopen();
    block_on(fixture.store().get_sandbox(&owner, &id)).unwrap();
}

async fn futures_poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[test]
fn a_flooded_writer_refuses_the_flooder_only() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (flood, quiet) = (tenant("flood"), tenant("quiet"));
    let (release, gate) = std::sync::mpsc::channel::<()>();
    block_on(async {
        let blocked = store.write(&flood, move |_| {
            gate.recv().unwrap();
            Ok(())
        });
        let mut waiting = vec![Box::pin(blocked) as std::pin::Pin<Box<dyn Future<Output = _>>>];
        // A future is queued when it is first polled: the blocked one must stand before all others.
        std::future::poll_fn(|c| {
            assert!(waiting[0].as_mut().poll(c).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        let mut refused = None;
        for _ in 0..2000 {
            let mut next: std::pin::Pin<Box<dyn Future<Output = _>>> =
                Box::pin(store.write(&flood, |_| Ok(())));
            match std::future::poll_fn(|c| std::task::Poll::Ready(next.as_mut().poll(c))).await {
                std::task::Poll::Ready(answer) => {
                    refused = Some(answer);
                    break;
                }
                std::task::Poll::Pending => waiting.push(next),
            }
        }
        assert!(matches!(refused, Some(Err(StoreError::Overloaded))), "{refused:?}");
        let mut other = Box::pin(store.create_sandbox(&quiet, new_sandbox(1), managed(1)));
        std::future::poll_fn(|c| {
            assert!(other.as_mut().poll(c).is_pending(), "another tenant still gets in");
            std::task::Poll::Ready(())
        })
        .await;
        release.send(()).unwrap();
        other.await.unwrap();
        for call in waiting {
            call.await.unwrap();
        }
    });
}

#[test]
fn a_reader_cannot_write() {
    let fixture = Fixture::new();
    let answer = block_on(fixture.store().read(&system(), |db| Ok(db.execute("DELETE FROM sandboxes", [])?)));
    assert!(answer.is_err(), "{answer:?}");
}
