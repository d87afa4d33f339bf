//! `bay-bench path|docker|api --bay BINARY [--path-micro BINARY] [--json FILE] [--minutes N] [--quick]`: what a call
//! costs, or what sandboxes on a Docker engine cost, and what of that is Bay; or what the REST interface holds.
//!
//! Nothing here fails because a figure is bad: a figure is printed with its aim, for a person to judge on a
//! machine they know. What fails is what cannot be measured.

#![expect(clippy::print_stdout, reason = "the figures are for whoever typed the command")]

mod api;
mod client;
mod docker;
mod memory;
mod micro;
mod path;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use lexopt::prelude::*;

/// Minutes of mixed load, unless told otherwise.
const MINUTES: f64 = 10.0;

/// Which bench.
#[derive(Debug, Clone, Copy)]
enum Bench {
    Path,
    Docker,
    Api,
}

/// What was typed.
struct Options {
    bench: Bench,
    bay: PathBuf,
    path_micro: Option<PathBuf>,
    json: Option<PathBuf>,
    /// Of `api`.
    size: api::Size,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bay-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let options = options(lexopt::Parser::from_env())?;
    let mut rows = Vec::new();
    if let Some(micro) = &options.path_micro {
        rows.extend(micro::rows(micro)?);
    }
    let name = match options.bench {
        Bench::Path => {
            rows.extend(path::rows(&options.bay)?);
            "path"
        }
        Bench::Docker => {
            rows.extend(docker::rows(&options.bay)?);
            "docker"
        }
        Bench::Api => {
            rows.extend(api::rows(&options.bay, options.size)?);
            "api"
        }
    };
    let report = bay_bench_report::Report::new(name, rows);
    print!("{}", report.markdown());
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn options(mut words: lexopt::Parser) -> anyhow::Result<Options> {
    let (mut bay, mut path_micro, mut json, mut bench) = (None, None, None, None);
    let mut size = api::Size::whole(MINUTES);
    while let Some(word) = words.next()? {
        match word {
            Long("bay") => bay = Some(PathBuf::from(words.value()?)),
            Long("path-micro") => path_micro = Some(PathBuf::from(words.value()?)),
            Long("json") => json = Some(PathBuf::from(words.value()?)),
            Long("minutes") => size.minutes = words.value()?.parse()?,
            Long("quick") => size = api::Size::quick(),
            Value(name) if bench.is_none() => bench = Some(name.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let bench = match bench.as_deref() {
        Some("path") => Bench::Path,
        Some("docker") => Bench::Docker,
        Some("api") => Bench::Api,
        other => bail!("which bench? there are `path`, `docker` and `api`, not {other:?}"),
    };
    Ok(Options { bench, bay: bay.context("--bay BINARY is needed")?, path_micro, json, size })
}
