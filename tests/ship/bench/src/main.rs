//! `bay-ship-bench [--quick] [--json FILE]`: what Ship costs by itself, against the same without it.
//!
//! Subject and baseline take turns in the same container of the same run. Nothing here fails because a figure is
//! bad: a figure is printed with its aim. What fails is what cannot be measured.
//!
//! `BAY_TEST_SHIP` and `BAY_TEST_PYTHON` say what to measure; see `bay_ship_tests`.

#![expect(clippy::print_stdout, reason = "the figures are for whoever typed the command")]

mod files;
mod python;
mod shell;
mod size;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use bay_bench_report::{Report, Row};
use bay_ship_tests::{Client, Container};
use lexopt::prelude::*;

/// What was typed.
#[derive(Default)]
struct Options {
    json: Option<PathBuf>,
    /// A tenth of everything: whether it can be measured, not what.
    quick: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bay-ship-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let options = options(lexopt::Parser::from_env())?;
    let share = if options.quick { 10 } else { 1 };
    let mut rows = size::rows(share)?;
    rows.extend(python::calls(share)?);
    rows.extend(shell::added(share)?);
    rows.extend(python::many(share)?);
    rows.extend(shell::at_once(share)?);
    rows.extend(files::rows(share)?);
    let report = Report::new("ship", rows);
    print!("{}", report.markdown());
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn options(mut words: lexopt::Parser) -> anyhow::Result<Options> {
    let mut options = Options::default();
    while let Some(word) = words.next()? {
        match word {
            Long("json") => options.json = Some(PathBuf::from(words.value()?)),
            Long("quick") => options.quick = true,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(options)
}

/// A container as most are here: as root two ids, else the nested isolation.
fn container() -> anyhow::Result<Container> {
    let isolation = bay_ship_tests::isolations().first().copied().context("no isolation can be had here")?;
    Ok(Container::new(isolation))
}

/// Puts a program into the workspace.
fn put(client: &mut Client, path: &str, text: &str) -> anyhow::Result<()> {
    let body = serde_json::json!({"path": path, "content": text});
    let written = client.post("/fs/write_file", &body);
    ensure!(written.is_ok(), "{path}: {written:?}");
    Ok(())
}

/// A row of one figure.
fn figure(what: &str, unit: &'static str, value: f64) -> Row {
    Row::alone(what, unit, &[value])
}

/// MB that a field of `/proc/<pid>/status` says in KiB.
#[expect(clippy::cast_precision_loss, reason = "megabytes of a process are far below 2^52 KiB")]
fn megabytes(container: &Container, pid: u32, field: &str) -> f64 {
    container.kib(pid, field) as f64 / 1024.0
}
