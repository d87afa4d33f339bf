//! `cargo xtask bench path`: builds what is measured in release and runs the `bay-bench` binary on it.

use anyhow::ensure;

use crate::{args, python, run, setup, workspace};

/// Builds and measures. Prints figures and whether each meets its aim; a missed aim is a figure, not a failure.
pub(crate) fn bench(options: &args::Bench) -> anyhow::Result<()> {
    ensure!(options.name == "path", "there is no bench `{}`; there is `path`", options.name);
    setup::setup(setup::For::Running)?;
    let bay = workspace::build_bay("release")?;
    let micro = workspace::build("bay-plugin-host", ["--example", "path_micro"], "release")?;
    let bench = workspace::build("bay-bench", ["--bin", "bay-bench"], "release")?;
    let python = python::for_tests(&bay)?;
    let mut command = run::command(&bench);
    command.arg(&options.name).arg("--bay").arg(&bay).arg("--path-micro").arg(&micro);
    if let Some(json) = &options.json {
        // The bench runs at the root of the workspace; a relative path means the caller's folder.
        command.arg("--json").arg(std::path::absolute(json)?);
    }
    run::checked(command.env("BAY_TEST_BIN", &bay).env("BAY_TEST_PYTHON", &python))
}
