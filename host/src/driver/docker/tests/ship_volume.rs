//! The runtime's volume: filled once, mended when it is not whole.

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::RemoveVolumeOptions;

use super::super::*;
use super::harness::*;
use crate::config::Connect;

#[tokio::test]
#[ignore = "needs BAY_TEST_DOCKER_HOST"]
async fn what_a_killed_bay_left_half_filled_is_filled() {
    let bay = Bay::new(Connect::Socket);
    let volume = VolumeCreateRequest {
        name: Some(bay.driver.inner.ship.name().to_owned()),
        ..VolumeCreateRequest::default()
    };
    bay.contact().await.docker.create_volume(volume).await.unwrap();
    bay.run(&bay.spec("ship", Network::None)).await;
}

#[tokio::test]
#[ignore = "needs BAY_TEST_DOCKER_HOST"]
async fn a_volume_removed_by_hand_is_made_again_at_the_next_start() {
    let bay = Bay::new(Connect::Socket);
    let spec = bay.spec("ship", Network::None);
    let container = bay.run(&spec).await;
    bay.driver.destroy(&container).await.unwrap();
    bay.contact()
        .await
        .docker
        .remove_volume(bay.driver.inner.ship.name(), None::<RemoveVolumeOptions>)
        .await
        .unwrap();
    bay.run(&spec).await;
}

#[tokio::test]
#[ignore = "needs BAY_TEST_DOCKER_HOST"]
async fn several_bays_fill_it_once_and_all_start() {
    let bay = Bay::new(Connect::Socket);
    let others: Vec<_> = (0..3).map(|_| bay.again()).collect();
    let specs: Vec<_> = (0..3).map(|n| bay.spec(&format!("ship{n}"), Network::None)).collect();
    let creates = others.iter().zip(&specs).map(|(driver, spec)| driver.create(spec));
    for (made, (driver, spec)) in
        futures::future::join_all(creates).await.into_iter().zip(others.iter().zip(&specs))
    {
        let started = driver.start(&made.unwrap(), spec, &config()).await.unwrap();
        bay.prove(&started).await;
    }
}
