//! The engine is away when Bay starts, or goes away while it runs.

use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::fake::{BUDGET, Scene, system, tenant, until};
use crate::error::Code;
use crate::session::{SessionError, recover};
use crate::store::SessionState;

#[tokio::test]
async fn a_ready_session_stays_ready_until_the_engine_answers_and_is_then_taken_over_once() {
    let (scene, key) = Scene::running().await;
    let Scene { store, fake, house, .. } = &scene;

    let (next, report) = scene.next_bay_without_engine().await;
    assert_eq!((report.adopted, report.lost, report.errors.len()), (0, 0, 1), "{report:?}");
    assert!(!next.recovered());
    let row = store.get_session(&tenant(), &key.id).await.unwrap();
    assert_eq!(row.state, SessionState::Ready, "an engine that is away says nothing of a session");
    match next.ensure_running(&house.sandbox, BUDGET).await {
        Err(SessionError::Failed(error)) => {
            assert_eq!((error.code, &error.details["part"]), (Code::Unavailable, &"driver".into()));
        }
        other => panic!("{other:?}"),
    }

    let ends = CancellationToken::new();
    let recovery = tokio::spawn(recover(next.clone(), ends.clone()));
    let before = fake.inspected.load(Ordering::SeqCst);
    fake.set_away(false);
    until("the recovery has passed", async || next.recovered()).await;
    let lease = next.ensure_running(&house.sandbox, BUDGET).await.unwrap();
    assert_eq!(lease.live.key, key, "the same session goes on");
    assert_eq!(fake.inspected.load(Ordering::SeqCst) - before, 1, "it was settled once");
    assert_eq!(next.unsettled(), 0);
    ends.cancel();
    recovery.await.unwrap();
}

#[tokio::test]
async fn what_died_with_the_engine_is_lost_and_the_next_call_starts_anew() {
    let (scene, _) = Scene::running().await;
    let Scene { fake, house, .. } = &scene;

    let (next, _) = scene.next_bay_without_engine().await;
    fake.kill_all();
    fake.set_away(false);
    tokio::spawn(recover(next.clone(), CancellationToken::new()));
    until("the recovery has passed", async || next.recovered()).await;
    let lease = next.ensure_running(&house.sandbox, BUDGET).await.unwrap();
    assert_eq!(lease.live.seq, 2);
    assert_eq!(fake.containers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_deletion_while_the_engine_is_away_is_finished_when_it_is_back() {
    let (scene, _) = Scene::running().await;
    let Scene { store, fake, house, .. } = &scene;

    // Once with a session that nobody has settled, as a Bay has it that started meanwhile.
    let (next, _) = scene.next_bay_without_engine().await;
    let ends = CancellationToken::new();
    tokio::spawn(recover(next.clone(), ends.clone()));
    let gone = store.delete_sandbox(&tenant(), &house.sandbox.id, 1).await.unwrap();
    let error = next.remove(&gone.sandbox, gone.session.as_ref()).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(!fake.is_empty());
    fake.set_away(false);
    until("container and volume are gone", async || fake.is_empty()).await;
    until("the rows are gone", async || {
        let pending = store.list_pending_removals(&system()).await.unwrap();
        pending.sessions.is_empty() && pending.lockers.is_empty()
    })
    .await;
    ends.cancel();
}

#[tokio::test]
async fn an_engine_that_goes_away_is_no_death() {
    let (scene, key) = Scene::running().await;
    let Scene { fake, house, .. } = &scene;
    fake.set_away(true);
    house.sessions.probe(&house.sandbox.id).await;
    fake.set_away(false);
    house.sessions.probe(&house.sandbox.id).await;
    let lease = house.sessions.ensure_running(&house.sandbox, BUDGET).await.unwrap();
    assert_eq!(lease.live.key, key);
    drop(lease);
    // And a death meanwhile is one all the same.
    fake.set_away(true);
    fake.kill_all();
    fake.set_away(false);
    let id = &house.sandbox.id;
    until("the death is known", async || house.sessions.view(id).live.is_none()).await;
}

#[tokio::test]
async fn a_start_without_an_engine_begins_nothing() {
    let scene = Scene::new().await;
    let Scene { fake, house, .. } = &scene;
    fake.set_away(true);
    for _ in 0..3 {
        match house.sessions.ensure_running(&house.sandbox, BUDGET).await {
            Err(SessionError::Failed(error)) => assert_eq!(error.code, Code::Unavailable),
            other => panic!("{other:?}"),
        }
    }
    fake.set_away(false);
    let lease = house.sessions.ensure_running(&house.sandbox, BUDGET).await.unwrap();
    assert_eq!(lease.live.seq, 1, "no session was spent on it");
}
