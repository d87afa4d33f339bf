//! What the REST interface holds: requests a second, lists, creates, connections, and memory over time. Clients are on
//! the same machine and share its processors with Bay.

mod connections;
mod load;
mod mixed;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bay_bench_report::Row;
use bay_tests::{Bay, Options};
use serde_json::json;

use load::Wire;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Of mixed load.
    pub(crate) minutes: f64,
    /// Sandboxes of the tenant that has many.
    many: usize,
    /// Seconds of requests as fast as they go.
    seconds: usize,
    /// Lists, and creates, that are timed.
    turns: usize,
    /// Idle connections.
    connections: usize,
}

impl Size {
    /// As promised.
    pub(crate) fn whole(minutes: f64) -> Self {
        Self { minutes, many: 100_000, seconds: 10, turns: 300, connections: 10_000 }
    }

    /// Only to see that everything runs; no figure of it is worth anything.
    pub(crate) fn quick() -> Self {
        Self { minutes: 0.1, many: 500, seconds: 1, turns: 20, connections: 200 }
    }
}

/// Clients at once, for the rows that say so.
const CLIENTS: usize = 32;
/// Sandboxes of the tenant that has few.
const FEW: usize = 100;

/// Starts a Bay and measures.
pub(crate) fn rows(binary: &Path, size: Size) -> anyhow::Result<Vec<Row>> {
    ensure!(
        std::env::var_os("BAY_TEST_BIN").is_some_and(|named| named == binary.as_os_str()),
        "BAY_TEST_BIN must name the same binary as --bay"
    );
    connections::raise_descriptors()?;
    let bay = Bay::start(options(size));
    let idle = crate::memory::of_bay(&bay)?;
    let client = |tenant: &str| Wire::new(bay.addr(), bay.key_of(tenant));
    let mut rows = Vec::new();
    rows.push(gets(&client("few"), size)?);
    fill(&client("few"), FEW)?;
    rows.push(creates(&client("create"), size)?);
    rows.push(fill(&client("many"), size.many)?);
    rows.extend(lists(&client("few"), &client("many"), size)?);
    rows.push(crate::memory::row("Bay resident before the connections", crate::memory::of_bay(&bay)?));
    rows.push(connections::row(&bay, size.connections)?);
    rows.extend(mixed::rows(&bay, &client("mixed"), size.minutes)?);
    rows.push(crate::memory::row("Bay resident at its start", idle));
    Ok(rows)
}

fn options(size: Size) -> Options {
    let connections = size.connections + 256;
    let server = json!({ "connections": connections, "idle_timeout": "1h" });
    ["few", "many", "create", "mixed"]
        .iter()
        .fold(Options::default().config(json!({ "server": server })), |options, tenant| {
            options.tenant(tenant)
        })
}

/// The id in a sandbox object.
fn made(body: &[u8]) -> anyhow::Result<String> {
    let object: serde_json::Value = serde_json::from_slice(body)?;
    Ok(object["id"].as_str().with_context(|| format!("no id in {object}"))?.to_owned())
}

const LAZY: &str = r#"{"profile":"shell-only","start":"lazy"}"#;

/// Requests a second of as many clients as can, one sandbox each.
fn gets(client: &Wire, size: Size) -> anyhow::Result<Row> {
    let sandboxes = (0..CLIENTS)
        .map(|_| made(&client.connect()?.post("/v1/sandboxes", LAZY)?.expect(201)?))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let seconds = load::at_once(CLIENTS, |number| {
        let mut connection = client.connect()?;
        let path = format!("/v1/sandboxes/{}", sandboxes[number]);
        let began = Instant::now();
        let mut counts = vec![0_u32; size.seconds];
        // The first second warms up.
        let until = Duration::from_secs(1 + size.seconds as u64);
        loop {
            let now = began.elapsed();
            if now >= until {
                return Ok(counts);
            }
            connection.get(&path)?.expect(200)?;
            let second = began.elapsed().as_secs() as usize;
            if let Some(count) = second.checked_sub(1).and_then(|second| counts.get_mut(second)) {
                *count += 1;
            }
        }
    })?;
    let rates: Vec<f64> = (0..size.seconds)
        .map(|second| seconds.iter().map(|counts| f64::from(counts[second])).sum())
        .collect();
    let what = format!("GET of an idle sandbox, {CLIENTS} clients, each second");
    Ok(Row::alone(&what, "req/s", &rates).at_least(10_000.0))
}

/// One client, one create after the other: each is on disk when it is answered.
fn creates(client: &Wire, size: Size) -> anyhow::Result<Row> {
    let mut connection = client.connect()?;
    let mut took = Vec::new();
    for turn in 0..size.turns + 10 {
        let began = Instant::now();
        connection.post("/v1/sandboxes", LAZY)?.expect(201)?;
        if turn >= 10 {
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(Row::alone("create (lazy) with its locker's record, durable", "ms", &took).at_most(3.0))
}

/// Makes sandboxes until there are so many; the rate says how long that took.
fn fill(client: &Wire, wanted: usize) -> anyhow::Result<Row> {
    let began = Instant::now();
    let each = wanted.div_ceil(CLIENTS);
    load::at_once(CLIENTS, |_| {
        let mut connection = client.connect()?;
        for _ in 0..each {
            connection.post("/v1/sandboxes", LAZY)?.expect(201)?;
        }
        Ok(())
    })?;
    let rate = (each * CLIENTS) as f64 / began.elapsed().as_secs_f64();
    Ok(Row::alone(&format!("creates (lazy) of {CLIENTS} clients at once"), "req/s", &[rate]))
}

/// In turns, so that both see the same machine.
fn lists(few: &Wire, many: &Wire, size: Size) -> anyhow::Result<[Row; 2]> {
    let (mut few, mut many) = (few.connect()?, many.connect()?);
    let (mut of_few, mut of_many) = (Vec::new(), Vec::new());
    for turn in 0..size.turns + 10 {
        for (connection, took) in [(&mut few, &mut of_few), (&mut many, &mut of_many)] {
            let began = Instant::now();
            connection.get("/v1/sandboxes?limit=50")?.expect(200)?;
            if turn >= 10 {
                took.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    let what = format!("list of 50 among {}", size.many);
    Ok([
        Row::alone(&what, "ms", &of_many).at_most(2.0),
        Row::against(&format!("the same; baseline: among {FEW}"), "ms", &of_many, &of_few).at_most_times(1.5),
    ])
}
