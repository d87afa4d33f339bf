//! A start is cancelled while the engine is still at it.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::fake::{BUDGET, Fake, House, Scene, system, tenant, until};
use crate::session::{SessionError, recover, remove_locker};

/// What the contract promises.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A start that hangs in the making of its container.
async fn hanging(house: &House, fake: &Fake) {
    fake.slow.send_replace(true);
    house.sessions.start_in_background(&house.sandbox);
    fake.creating.subscribe().wait_for(|n| *n > 0).await.unwrap();
}

#[tokio::test]
async fn a_deletion_does_not_wait_for_a_slow_engine_and_leaves_nothing() {
    let scene = Scene::new().await;
    let Scene { store, fake, house, .. } = &scene;
    tokio::spawn(recover(house.sessions.clone(), CancellationToken::new()));
    hanging(house, fake).await;

    let began = Instant::now();
    let gone = store.delete_sandbox(&tenant(), &house.sandbox.id, 1).await.unwrap();
    house.sessions.remove(&gone.sandbox, gone.session.as_ref()).await.unwrap();
    // As a deletion does: what the engine is still making would make the volume again.
    for locker in store.list_pending_removals(&system()).await.unwrap().lockers {
        remove_locker(&house.sessions, &system(), &locker).await.unwrap();
    }
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());

    fake.slow.send_replace(false);
    until("the container was made, and is gone with its volume", async || {
        let pending = store.list_pending_removals(&system()).await.unwrap();
        fake.is_empty() && pending.sessions.is_empty() && pending.lockers.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_stop_does_not_wait_either_and_another_start_may_follow() {
    let scene = Scene::new().await;
    let Scene { fake, house, .. } = &scene;
    tokio::spawn(recover(house.sessions.clone(), CancellationToken::new()));
    hanging(house, fake).await;

    let began = Instant::now();
    house.sessions.stop(&house.sandbox).await.unwrap();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());

    fake.slow.send_replace(false);
    let lease = house.sessions.ensure_running(&house.sandbox, BUDGET).await.unwrap();
    assert_eq!(lease.live.seq, 2);
    until("only the second is left", async || fake.containers.lock().unwrap().len() == 1).await;
    let running = fake.containers.lock().unwrap().keys().next().unwrap().clone();
    assert_eq!(running, lease.live.containers[0].reference.name);
}

#[tokio::test]
async fn whoever_waits_for_a_cancelled_start_is_told() {
    let scene = Scene::new().await;
    let Scene { fake, house, .. } = &scene;
    fake.slow.send_replace(true);
    let (sessions, sandbox) = (house.sessions.clone(), house.sandbox.clone());
    let waiter = tokio::spawn(async move { sessions.ensure_running(&sandbox, BUDGET).await });
    fake.creating.subscribe().wait_for(|n| *n > 0).await.unwrap();
    house.sessions.stop(&house.sandbox).await.unwrap();
    assert!(matches!(waiter.await.unwrap(), Err(SessionError::Failed(_))));
    fake.slow.send_replace(false);
}
