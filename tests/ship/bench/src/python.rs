//! `print(1)`: through Ship, over `jupyter_client` on the very same kernel; and ten thousand times in a row.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use bay_bench_report::{Row, median};
use bay_ship_tests::Client;

use crate::{container, figure, megabytes, put};

/// What every row runs.
const CODE: &str = "print(1)";
/// Subject and baseline take turns this often.
const TURNS: usize = 20;
/// Calls of each in one turn.
const CALLS: usize = 25;
/// Before the first turn, and for a baseline's own client in each turn.
const WARM: usize = 10;
/// In a row.
const MANY: usize = 10_000;
/// What is compared of their beginning and their end.
const SOME: usize = 100;
/// Before anything is compared: buffers find their size.
const SETTLE: usize = 1000;
/// The same program as `bench path` uses.
const EXECUTE: &str = include_str!("../../../bench/src/inside/execute.py");

/// One call, ms.
fn once(client: &mut Client) -> anyhow::Result<f64> {
    let began = Instant::now();
    let answer = client.python(CODE);
    let took = began.elapsed().as_secs_f64() * 1e3;
    ensure!(answer.success && answer.output == "1\n", "{answer:?}");
    Ok(took)
}

pub(crate) fn calls(share: usize) -> anyhow::Result<Vec<Row>> {
    let container = container()?;
    let client = &mut container.client();
    put(client, "bench/execute.py", EXECUTE)?;
    for _ in 0..WARM {
        once(client)?;
    }
    let (mut through, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..(TURNS / share).max(2) {
        for _ in 0..CALLS {
            through.push(once(client)?);
        }
        let said = client
            .shell_ok(&format!("/opt/bay/python/bin/python3 -P -s bench/execute.py '{CODE}' {CALLS} {WARM}"));
        let times: Vec<f64> = serde_json::from_str(&said).with_context(|| said.clone())?;
        direct.extend(times);
    }
    Ok(vec![
        Row::against(
            "execute print(1) through Ship; baseline: jupyter_client on the same kernel",
            "ms",
            &through,
            &direct,
        )
        .at_most_times(1.15),
    ])
}

pub(crate) fn many(share: usize) -> anyhow::Result<Vec<Row>> {
    let container = container()?;
    let client = &mut container.client();
    for _ in 0..SETTLE {
        once(client)?;
    }
    let agent = container.agent();
    let held = |what: &str| -> anyhow::Result<f64> {
        let count = std::fs::read_dir(format!("/proc/{agent}/{what}"))?.count();
        Ok(f64::from(u32::try_from(count)?))
    };
    let before = (held("fd")?, held("task")?, megabytes(&container, agent, "VmRSS:"));
    let count = MANY / share;
    let (mut times, mut failed) = (Vec::with_capacity(count), 0u32);
    for _ in 0..count {
        match once(client) {
            Ok(took) => times.push(took),
            Err(error) => {
                eprintln!("{error:#}");
                failed += 1;
            }
        }
    }
    let row = |what: &str, unit, value| figure(&format!("{count} executes in a row: {what}"), unit, value);
    let (first, last) = (times.get(..SOME).unwrap_or(&times), &times[times.len().saturating_sub(SOME)..]);
    ensure!(!times.is_empty() && median(first) > 0.0, "none succeeded");
    Ok(vec![
        row("failures", "", failed.into()).at_most(0.0),
        row("descriptors gained", "", held("fd")? - before.0).at_most(0.0),
        row("threads gained", "", held("task")? - before.1).at_most(0.0),
        row("resident memory gained", "MB", megabytes(&container, agent, "VmRSS:") - before.2).at_most(1.0),
        Row::against("the last hundred of them; baseline: the first hundred", "ms", last, first)
            .at_most_times(1.1),
    ])
}
