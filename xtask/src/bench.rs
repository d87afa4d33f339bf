//! `cargo xtask bench path`: builds what is measured in release and runs the `bay-bench` binary on it.

use anyhow::{Context as _, ensure};

use crate::{args, run, setup, workspace};

/// Builds and measures. Prints figures and whether each meets its aim; a missed aim is a figure, not a failure.
pub(crate) fn bench(options: &args::Bench) -> anyhow::Result<()> {
    ensure!(options.name == "path", "there is no bench `{}`; there is `path`", options.name);
    setup::setup(setup::For::Running)?;
    let bay = workspace::build_binary("bay", "release")?;
    let bench = workspace::build_binary("bay-bench", "release")?;
    let mut command = run::command(bench.to_str().context("the path of the binary is not UTF-8")?);
    command.arg(&options.name).arg("--bay").arg(&bay);
    if let Some(json) = &options.json {
        // The bench runs at the root of the workspace; a relative path means the caller's folder.
        command.arg("--json").arg(std::path::absolute(json)?);
    }
    run::checked(&mut command)
}
