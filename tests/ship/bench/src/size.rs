//! How large Ship is, and how soon it answers.

use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bay_bench_report::Row;
use bay_ship_tests::{Place, Setup};

use crate::{container, figure, megabytes};

/// Containers started one after the other.
const STARTS: usize = 30;

pub(crate) fn rows(share: usize) -> anyhow::Result<Vec<Row>> {
    let binary = std::fs::metadata(bay_ship_tests::bare::ship())?;
    #[expect(clippy::cast_precision_loss, reason = "a binary is far below 2^52 bytes")]
    let binary = figure("binary", "MB", binary.len() as f64 / 1048576.0).at_most(10.0);
    let container = container()?;
    let mut client = container.client();
    // Idle, with everything started that starts by itself.
    client.python_ok("1");
    let parts = [container.init(), container.agent()];
    let resident = parts.iter().map(|pid| megabytes(&container, *pid, "VmRSS:")).sum();
    let resident =
        figure("resident, idle, kernel up: init and agent together, each whole", "MB", resident).at_most(6.0);
    drop(container);
    let mut starts = Vec::new();
    for _ in 0..(STARTS / share).max(3) {
        starts.push(start()?);
    }
    let start =
        Row::alone("start: configuration handed to init → /health answered", "ms", &starts).at_most(10.0);
    Ok(vec![binary, resident, start])
}

/// From the moment init has been given its configuration, ms.
fn start() -> anyhow::Result<f64> {
    let isolation = bay_ship_tests::isolations().first().copied().context("no isolation")?;
    let mut setup = Setup::new(isolation);
    let (send, began) = mpsc::channel();
    setup.before_config = Some(Box::new(move |_| {
        let _ = send.send(Instant::now());
    }));
    let container = setup.start();
    let began = began.try_recv().context("init was not waited for")?;
    // The socket is there already, and the connection waits in its queue.
    let mut client = container.connect().map(bay_ship_tests::Client::over)?;
    let answer = client.get("/health");
    let took = began.elapsed().as_secs_f64() * 1e3;
    ensure!(answer.status == 200, "/health answered {}", answer.status);
    Ok(took)
}
