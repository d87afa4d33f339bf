//! A bit of everything for some minutes, while memory is looked at: what grows here grows for ever.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bay_bench_report::Row;
use bay_tests::Bay;
use serde_json::json;

use super::load::{Connection, Wire, at_once};
use super::{LAZY, made};
use crate::memory;

/// Clients at once.
const CLIENTS: usize = 4;
/// The first part of the time warms up: caches fill, the database finds its size.
const WARM: f64 = 0.25;
/// How often memory is looked at, and how many looks of one slope at most.
const LOOK: Duration = Duration::from_secs(1);

/// Megabytes that ten minutes would add, and what was done for it.
pub(crate) fn rows(bay: &Bay, client: &Wire, minutes: f64) -> anyhow::Result<[Row; 2]> {
    let until = Duration::from_secs_f64(minutes * 60.0);
    let began = Instant::now();
    // The first thread looks, the others work.
    let done = at_once(CLIENTS + 1, |number| {
        if number == 0 {
            look(bay, began, until).map(Did::Looked)
        } else {
            work(client, began, until).map(Did::Worked)
        }
    })?;
    let mut looks = Vec::new();
    let mut rounds = 0.0;
    for part in done {
        match part {
            Did::Looked(seen) => looks = seen,
            Did::Worked(more) => rounds += f64::from(more),
        }
    }
    let warm = until.as_secs_f64() * WARM;
    let settled: Vec<(f64, f64)> = looks.into_iter().filter(|(at, _)| *at >= warm).collect();
    let slope = slope(&settled).context("too few looks at memory; give it more minutes")? * 600.0;
    let what = format!("memory that ten minutes of mixed load add, over {minutes} minutes of it");
    Ok([memory::row(&what, slope).at_most(1.0), Row::alone("rounds of that load", "rounds", &[rounds])])
}

enum Did {
    Looked(Vec<(f64, f64)>),
    Worked(u32),
}

fn look(bay: &Bay, began: Instant, until: Duration) -> anyhow::Result<Vec<(f64, f64)>> {
    let mut seen = Vec::new();
    while began.elapsed() < until {
        seen.push((began.elapsed().as_secs_f64(), memory::of_bay(bay)?));
        std::thread::park_timeout(LOOK);
    }
    Ok(seen)
}

fn work(client: &Wire, began: Instant, until: Duration) -> anyhow::Result<u32> {
    let mut connection = client.connect()?;
    let running = json!({ "profile": "shell-only", "start": "wait" }).to_string();
    let running = made(&connection.post("/v1/sandboxes", &running)?.expect(201)?)?;
    let mut rounds = 0;
    while began.elapsed() < until {
        round(client, &mut connection, &running)?;
        rounds += 1;
    }
    connection.delete(&format!("/v1/sandboxes/{running}"))?.expect(204)?;
    Ok(rounds)
}

/// What clients do, errors included.
fn round(client: &Wire, connection: &mut Connection, running: &str) -> anyhow::Result<()> {
    let own = format!("/v1/sandboxes/{running}");
    let lazy = made(&connection.post("/v1/sandboxes", LAZY)?.expect(201)?)?;
    connection.get(&own)?.expect(200)?;
    connection.get("/v1/sandboxes?limit=20")?.expect(200)?;
    connection.post(&format!("{own}/shell/exec"), r#"{"command":"echo hi"}"#)?.expect(200)?;
    let file = r#"{"path":"a/b.txt","content":"some text"}"#;
    connection.put(&format!("{own}/filesystem/files"), file)?.expect(200)?;
    connection.get(&format!("{own}/filesystem/files?path=a/b.txt"))?.expect(200)?;
    connection.get(&format!("{own}/filesystem/files?path=none"))?.expect(404)?;
    connection.get("/v1/sandboxes/sbx_nowhere")?.expect(404)?;
    connection.post(&format!("{own}/shell/exec"), r#"{"command":1}"#)?.expect(400)?;
    // One that comes, asks and goes.
    client.connect()?.get("/v1/profiles")?.expect(200)?;
    connection.delete(&format!("/v1/sandboxes/{lazy}"))?.expect(204)?;
    Ok(())
}

/// Of the line that fits best; null for less than two points.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a number of seconds")]
    let number = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / number;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    let together: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    (points.len() >= 2 && spread > 0.0).then(|| together / spread)
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_slope_is_that_of_the_line() {
        let line: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), 3.0 + 0.5 * f64::from(x))).collect();
        assert!((slope(&line).unwrap() - 0.5).abs() < 1e-9);
        assert!(slope(&line[..1]).is_none() && slope(&[]).is_none());
    }
}
