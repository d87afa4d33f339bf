//! How long a start takes, for a look: `cargo test --release -- --ignored --nocapture start_takes`.

use std::time::Instant;

use super::super::*;
use super::harness::*;

#[tokio::test]
#[ignore = "prints figures, asserts nothing"]
async fn start_takes() {
    let bay = Bay::new();
    let mut rows = Vec::new();
    for number in 0..20 {
        let spec = spec(&format!("n{number}"));
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
        "create+start, create, first answer of a Python stand-in: median {:?}, slowest {:?}",
        rows[10], rows[19]
    );
}
