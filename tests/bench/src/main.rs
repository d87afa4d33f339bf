//! `bay-bench path --bay BINARY [--path-micro BINARY] [--json FILE]`: what a call costs, and what of that is Bay.
//!
//! Nothing here fails because a figure is bad: a figure is printed with its aim, for a person to judge on a
//! machine they know. What fails is what cannot be measured.

#![expect(clippy::print_stdout, reason = "the figures are for whoever typed the command")]

mod client;
mod memory;
mod micro;
mod path;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use lexopt::prelude::*;

/// What was typed.
struct Options {
    bay: PathBuf,
    path_micro: Option<PathBuf>,
    json: Option<PathBuf>,
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
    rows.extend(path::rows(&options.bay)?);
    let report = bay_bench_report::Report::new("path", rows);
    print!("{}", report.markdown());
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn options(mut words: lexopt::Parser) -> anyhow::Result<Options> {
    let (mut bay, mut path_micro, mut json, mut bench) = (None, None, None, None);
    while let Some(word) = words.next()? {
        match word {
            Long("bay") => bay = Some(PathBuf::from(words.value()?)),
            Long("path-micro") => path_micro = Some(PathBuf::from(words.value()?)),
            Long("json") => json = Some(PathBuf::from(words.value()?)),
            Value(name) if bench.is_none() => bench = Some(name.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    match bench.as_deref() {
        Some("path") => {}
        other => bail!("which bench? there is `path`, not {other:?}"),
    }
    Ok(Options { bay: bay.context("--bay BINARY is needed")?, path_micro, json })
}
