//! `echo hi`: through Ship, over a bare fork and exec of the same shell; one by one and sixty-four at once.

use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context as _, anyhow, ensure};
use bay_bench_report::{Row, p95};
use bay_ship_tests::Client;

use crate::{container, put};

/// Subject and baseline take turns this often.
const TURNS: usize = 20;
/// Calls of each in one turn.
const CALLS: usize = 25;
/// As many commands as Ship runs at once.
const AT_ONCE: usize = 64;
/// Rounds of that many.
const ROUNDS: usize = 20;
/// The same program as `bench path` uses.
const ECHO: &str = include_str!("../../../bench/src/inside/echo.sh");

/// One call, ms.
fn once(client: &mut Client) -> anyhow::Result<f64> {
    let began = Instant::now();
    let answer = client.shell("echo hi");
    let took = began.elapsed().as_secs_f64() * 1e3;
    ensure!(answer.stdout == "hi\n" && answer.exit_code == Some(0), "{answer:?}");
    Ok(took)
}

pub(crate) fn added(share: usize) -> anyhow::Result<Vec<Row>> {
    let container = container()?;
    let client = &mut container.client();
    put(client, "bench/echo.sh", ECHO)?;
    // The very shell that Ship starts, asked of itself.
    let shell = client.shell_ok("readlink /proc/$$/exe");
    ensure!(shell.starts_with('/') && !shell.contains('\''), "the shell says it is {shell}");
    let (mut through, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..=(TURNS / share).max(2) {
        let mut times = Vec::new();
        for _ in 0..CALLS {
            times.push(once(client)?);
        }
        let said = client.shell_ok(&format!("bash bench/echo.sh {CALLS} '{shell}'"));
        // The first turn warms both up.
        if turn > 0 {
            through.extend(times);
            bare.extend(serde_json::from_str::<Vec<f64>>(&said).with_context(|| said.clone())?);
        }
    }
    Ok(vec![
        Row::against(
            "shell echo hi through Ship; baseline: the same bare in the sandbox",
            "ms",
            &through,
            &bare,
        ),
        Row::added("added by Ship to it", "ms", &through, &bare).at_most(1.5),
    ])
}

/// Does it as often as there are items, all at once; each time in ms.
fn together<T: Send>(
    items: &mut [T],
    work: impl Fn(&mut T) -> anyhow::Result<f64> + Sync,
) -> anyhow::Result<Vec<f64>> {
    let start = Barrier::new(items.len());
    std::thread::scope(|scope| {
        let calls: Vec<_> = items
            .iter_mut()
            .map(|item| {
                scope.spawn(|| {
                    start.wait();
                    work(item)
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().map_err(|_| anyhow!("a thread died"))?).collect()
    })
}

/// One bare process, ms.
fn bare() -> anyhow::Result<f64> {
    let began = Instant::now();
    let output = Command::new("/bin/bash")
        .args(["--norc", "--noprofile", "-c", "echo hi"])
        .stdin(Stdio::null())
        .output()?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    ensure!(output.status.success() && output.stdout == b"hi\n", "{output:?}");
    Ok(took)
}

pub(crate) fn at_once(share: usize) -> anyhow::Result<Vec<Row>> {
    let container = container()?;
    let mut clients: Vec<Client> = (0..AT_ONCE).map(|_| container.client()).collect();
    let (mut through, mut machine) = (Vec::new(), Vec::new());
    for round in 0..=(ROUNDS / share).max(2) {
        let times = (together(&mut clients, once)?, together(&mut [(); AT_ONCE], |()| bare())?);
        // The first round warms both up.
        if round > 0 {
            through.push(p95(&times.0));
            machine.push(p95(&times.1));
        }
    }
    let what = "p95 of 64 concurrent shell echo hi, all right; baseline: the bare machine doing the same";
    Ok(vec![Row::against(what, "ms", &through, &machine).at_most_times(2.0)])
}
