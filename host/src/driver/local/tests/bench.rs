//! How long a start takes, for a look: `cargo test --release -- --ignored --nocapture start_takes`.

use std::time::Instant;

use super::super::*;
use super::harness::*;

#[tokio::test]
#[ignore = "prints figures, asserts nothing"]
async fn start_takes() {
    let bay = Bay::new();
    for network in bay.driver.features().networks.clone() {
        let mut rows = Vec::new();
        for number in 0..20 {
            let spec = ContainerSpec { network, ..spec(&format!("n{number}")) };
            bay.driver.volume_create(&spec.volume).await.unwrap();
            let begin = Instant::now();
            let container = bay.driver.create(&spec).await.unwrap();
            let created = begin.elapsed();
            let container = bay.driver.start(&container, &spec, &config()).await.unwrap();
            let started = begin.elapsed();
            ask(&bay.driver, &container, "answer = 1", false).await;
            rows.push((started, created, begin.elapsed()));
            bay.driver.destroy(&container).await.unwrap();
        }
        rows.sort();
        println!(
            "{network:?}: create+start, create, first answer: median {:?}, slowest {:?}",
            rows[10], rows[19]
        );
    }
}

#[tokio::test]
#[ignore = "needs a runtime: BAY_TEST_SHIP=path"]
async fn the_real_runtime_listens() {
    let ship = std::env::var_os("BAY_TEST_SHIP").expect("BAY_TEST_SHIP names the runtime");
    let bay = Bay::new();
    std::fs::copy(ship, bay.dir.path().join("ship")).unwrap();
    for network in bay.driver.features().networks.clone() {
        let spec = ContainerSpec { network, ..spec("real") };
        bay.driver.volume_create(&spec.volume).await.unwrap();
        let begin = Instant::now();
        let container = bay.driver.create(&spec).await.unwrap();
        let container = bay.driver.start(&container, &spec, &config()).await.unwrap();
        let started = begin.elapsed();
        let mut stream = bay.driver.dial(&container, 8123).await.unwrap();
        // Ship speaks first in the handshake; without a right answer it hangs up, which is enough here.
        let mut first = [0_u8; 1];
        let outcome =
            tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read(&mut stream, &mut first)).await;
        let log = bay.driver.logs(&container, 4000).await.unwrap();
        println!("{network:?}: started {started:?}, first byte {:?}: {outcome:?}", begin.elapsed());
        println!(
            "{:?}; log: {}",
            bay.driver.inspect(&container).await.unwrap(),
            String::from_utf8_lossy(&log)
        );
        bay.driver.destroy(&container).await.unwrap();
    }
}
