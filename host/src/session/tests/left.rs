//! What is left of a session that is over, and what only looks like one of ours.

use std::sync::atomic::Ordering;

use super::fake::{BUDGET, Scene, system};
use crate::error::Code;
use crate::session::{SessionError, adopt};

#[tokio::test]
async fn nothing_starts_before_the_containers_of_a_lost_session_are_removed() {
    let (scene, _) = Scene::running().await;
    let Scene { fake, house, .. } = &scene;
    // Away at first, so that the earlier Bay's task is not the one that finds the death.
    let (next, _) = scene.next_bay_without_engine().await;
    fake.kill_all();
    fake.stuck.store(true, Ordering::SeqCst);
    fake.set_away(false);
    // The first pass finds it dead; the second finds a row that is over, and its containers still not removed.
    for _ in 0..2 {
        let report = adopt(&next, &system()).await.unwrap();
        assert_eq!((report.errors.len(), report.finished, report.away), (1, 0, false), "{report:?}");
        assert_eq!(next.unsettled(), 1);
        match next.ensure_running(&house.sandbox, BUDGET).await {
            Err(SessionError::Failed(error)) => assert_eq!(error.code, Code::Unavailable),
            other => panic!("{other:?}"),
        }
        assert_eq!(next.stop(&house.sandbox).await.unwrap_err().code, Code::Unavailable);
    }
    fake.stuck.store(false, Ordering::SeqCst);
    adopt(&next, &system()).await.unwrap();
    assert_eq!(next.unsettled(), 0);
    let lease = next.ensure_running(&house.sandbox, BUDGET).await.unwrap();
    assert_eq!(lease.live.seq, 2);
}

#[tokio::test]
async fn what_is_left_of_a_session_beside_its_containers_keeps_nothing_from_starting() {
    let (scene, _) = Scene::running().await;
    let Scene { fake, house, .. } = &scene;
    let (next, _) = scene.next_bay_without_engine().await;
    fake.kill_all();
    fake.littered.store(true, Ordering::SeqCst);
    fake.set_away(false);
    let report = adopt(&next, &system()).await.unwrap();
    assert_eq!((report.lost, next.unsettled()), (1, 0), "{report:?}");
    let lease = next.ensure_running(&house.sandbox, BUDGET).await.unwrap();
    assert_eq!(lease.live.seq, 2);
    // It is not forgotten.
    fake.littered.store(false, Ordering::SeqCst);
    assert_eq!(adopt(&next, &system()).await.unwrap().finished, 1);
}

#[tokio::test]
async fn a_container_that_no_row_names_is_told_and_left_alone() {
    let scene = Scene::new().await;
    let Scene { fake, house, .. } = &scene;
    let name = "bay-ses-somebody-copied-the-labels";
    fake.containers.lock().unwrap().insert(name.to_owned(), None);
    let report = adopt(&house.sessions, &system()).await.unwrap();
    assert_eq!((report.reported, report.strangers), (1, 0), "{report:?}");
    assert!(fake.containers.lock().unwrap().contains_key(name));
}
