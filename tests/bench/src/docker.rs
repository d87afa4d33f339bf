//! What Bay adds to a Docker engine: each figure is over bare calls of the engine's API for the same image in the same
//! mode, in turns within one run.

mod bare;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bay_bench_report::Row;
use bay_tests::driver::{connect, image};
use bay_tests::{Bay, Engine, Options, Profile};
use serde_json::json;

use crate::client::Client;
use bare::Bare;

/// Turns of subject and baseline; the first warms both up and is not counted.
const TURNS: usize = 12;
/// Starts that are cancelled, and how much later each is than the one before.
const CANCELS: u32 = 16;
const LATER: Duration = Duration::from_millis(25);
/// Sandboxes made at once.
const CROWD: usize = 20;
/// Times that a crowd comes.
const CROWDS: usize = 3;
/// What starts a kernel by itself, as Ship does, and waits until it has printed.
const KERNEL: &str = include_str!("inside/kernel.py");

/// Of the Docker engine that the tests use.
pub(crate) fn rows(binary: &Path) -> anyhow::Result<Vec<Row>> {
    ensure!(
        std::env::var_os("BAY_TEST_BIN").is_some_and(|named| named == binary.as_os_str()),
        "BAY_TEST_BIN must name the same binary as --bay"
    );
    ensure!(bay_tests::on_docker(), "this bench needs BAY_TEST_DRIVER=docker");
    let crowd = json!({ "resources": { "cpus": 1.0, "memory": "256m", "pids": 128 } });
    let bay = Bay::start(Options::default().profile(Profile::shell().named("crowd").container(crowd)));
    let client = Client::new(bay.addr(), bay.key());
    let bare = Bare::new(Engine::of_tests(), image(), connect())?;
    let mut rows = Vec::new();
    rows.extend(starts(&client, &bare)?);
    rows.extend(ends(&client, &bare)?);
    rows.push(cancels(&client)?);
    rows.push(crowds(&client, &bare)?);
    Ok(rows)
}

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

/// A sandbox of a profile, and the milliseconds of its creation.
fn create(client: &Client, profile: &str, start: &str) -> anyhow::Result<(String, f64)> {
    let (made, took) = client.post("", &json!({ "profile": profile, "start": start }))?;
    Ok((made["id"].as_str().context("no id")?.to_owned(), took))
}

fn echo(client: &Client, id: &str) -> anyhow::Result<f64> {
    let (answer, took) = client.post(&format!("/{id}/shell/exec"), &json!({ "command": "echo hi" }))?;
    ensure!(answer["stdout"] == "hi\n", "shell/exec answered {answer}");
    Ok(took)
}

fn starts(client: &Client, bare: &Bare) -> anyhow::Result<[Row; 2]> {
    let (mut shell, mut python, mut floor, mut kernel) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let (id, making) = create(client, "shell-only", "eager")?;
        let first_shell = making + echo(client, &id)?;
        client.delete(&id)?;

        let (id, making) = create(client, "python-default", "eager")?;
        let (answer, running) = client.post(&format!("/{id}/python/exec"), &json!({ "code": "print(1)" }))?;
        ensure!(answer["output"] == "1\n", "python/exec answered {answer}");
        client.delete(&id)?;

        let began = Instant::now();
        let container = bare.create_and_start(&["sleep", "60"])?;
        let started = ms(began);
        bare.remove(&container)?;
        // The kernel within such a container, timed from within.
        let container = bare.create_and_start(&["sleep", "60"])?;
        let own = bare.run(&container, &["python3", "-P", "-s", "-c", KERNEL, "print(1)"]);
        bare.remove(&container)?;
        let own = own?;
        if turn > 0 {
            shell.push(first_shell);
            python.push(making + running);
            floor.push(started);
            let own: Vec<f64> = serde_json::from_str(own.trim()).with_context(|| own.clone())?;
            kernel.extend(own.iter().map(|alone| started + alone));
        }
    }
    Ok([
        Row::against(
            "cold create → first shell output; baseline: bare create + start of the same image",
            "ms",
            &shell,
            &floor,
        )
        .at_most_times(1.15),
        Row::against(
            "cold create → first Python output; baseline: that floor and the start of a kernel",
            "ms",
            &python,
            &kernel,
        )
        .at_most_times(1.1),
    ])
}

fn ends(client: &Client, bare: &Bare) -> anyhow::Result<[Row; 2]> {
    let (mut stops, mut deletes, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let (id, _) = create(client, "python-default", "wait")?;
        let (_, stop) = client.post(&format!("/{id}/stop"), &json!({}))?;
        client.delete(&id)?;

        let (id, _) = create(client, "python-default", "wait")?;
        let began = Instant::now();
        client.delete(&id)?;
        let delete = ms(began);

        let container = bare.create_and_start(&["sleep", "60"])?;
        let began = Instant::now();
        bare.kill_and_remove(&container)?;
        let ended = ms(began);
        bare.remove(&container)?;
        if turn > 0 {
            stops.push(stop);
            deletes.push(delete);
            floor.push(ended);
        }
    }
    let baseline = "baseline: kill + remove over the API";
    Ok([
        Row::against(&format!("stop of an idle sandbox; {baseline}"), "ms", &stops, &floor)
            .at_most_times(1.3),
        Row::against(&format!("delete of an idle running sandbox; {baseline}"), "ms", &deletes, &floor)
            .at_most_times(1.3),
    ])
}

/// Deletes each a little later in its start than the one before.
fn cancels(client: &Client) -> anyhow::Result<Row> {
    let mut took = Vec::new();
    for turn in 0..CANCELS {
        let (id, _) = create(client, "shell-only", "eager")?;
        std::thread::park_timeout(LATER * turn);
        let began = Instant::now();
        client.delete(&id)?;
        took.push(ms(began));
    }
    let row = Row::alone("delete during a start", "ms", &took);
    let worst = took.iter().copied().fold(0.0, f64::max);
    Ok(Row { aim: Some("≤ 1000 ms, each".to_owned()), ok: worst <= 1000.0, ..row })
}

/// `CROWD` at once; the figure is what one in twenty waits.
fn crowds(client: &Client, bare: &Bare) -> anyhow::Result<Row> {
    let (mut through, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..CROWDS {
        let (times, ids) = at_once(|| {
            let began = Instant::now();
            let (id, _) = create(client, "crowd", "eager")?;
            echo(client, &id)?;
            Ok((ms(began), id))
        })?;
        through.extend(times);
        ids.iter().try_for_each(|id| client.delete(id))?;
        let (times, ids) = at_once(|| {
            let began = Instant::now();
            let id = bare.create_and_start(&["sleep", "120"])?;
            Ok((ms(began), id))
        })?;
        floor.extend(times);
        ids.iter().try_for_each(|id| bare.remove(id))?;
    }
    let (subject, base) = (bay_bench_report::p95(&through), bay_bench_report::p95(&floor));
    let what = format!(
        "{CROWD} creates at once → first shell output; p95 over the engine's own p95 for as many bare"
    );
    let row = Row::alone(&what, "ms", &through);
    Ok(Row { baseline: Some(base), ratio: Some(subject / base), ..row }.at_most_times(1.3))
}

/// As many threads as a crowd has heads; a failure of one is one of all.
fn at_once(
    one: impl Fn() -> anyhow::Result<(f64, String)> + Sync,
) -> anyhow::Result<(Vec<f64>, Vec<String>)> {
    let done: Vec<anyhow::Result<(f64, String)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CROWD).map(|_| scope.spawn(&one)).collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|done| done.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))).collect()
    });
    let done: Vec<(f64, String)> = done.into_iter().collect::<anyhow::Result<_>>()?;
    Ok(done.into_iter().unzip())
}
