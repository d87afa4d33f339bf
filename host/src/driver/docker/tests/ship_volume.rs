//! The runtime's volume: filled once, mended when it is not whole.

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::RemoveVolumeOptions;

use super::super::*;
use super::harness::*;
use crate::config::Connect;

#[tokio::test]
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
async fn several_bays_fill_it_once_and_all_start() {
    let bay = Bay::new(Connect::Socket);
    // Each with an instance of its own, as on machines that share a daemon.
    let other = |n: usize| {
        let mut options = bay.options.clone();
        options.instance_id = format!("{}-{n}", bay.options.instance_id);
        let mut spec = bay.spec(&format!("ship{n}"), Network::None);
        spec.labels.insert(names::INSTANCE.to_owned(), options.instance_id.clone());
        (DockerDriver::new(&options).unwrap(), spec)
    };
    let others: Vec<_> = (0..3).map(other).collect();
    let creates = others.iter().map(|(driver, spec)| driver.create(spec));
    let made = futures::future::join_all(creates).await;
    for (made, (driver, spec)) in made.into_iter().zip(&others) {
        let started = driver.start(&made.unwrap(), spec, &config()).await.unwrap();
        bay.prove(&started).await;
        driver.destroy(&started).await.unwrap();
    }
}
