//! `cargo xtask bench path|ship|docker|api`: builds what is measured as it is shipped, and runs a bench of it.

use std::process::Command;

use anyhow::bail;

use crate::{args, python, run, setup, workspace};

/// Builds and measures. Prints figures and whether each meets its aim; a missed aim is a figure, not a failure.
pub(crate) fn bench(options: &args::Bench) -> anyhow::Result<()> {
    setup::setup(setup::For::Running)?;
    let mut command = match options.name.as_str() {
        "path" => path()?,
        "ship" => ship()?,
        "docker" => docker()?,
        "api" => api(options)?,
        other => bail!("there is no bench `{other}`; there are `path`, `ship`, `docker` and `api`"),
    };
    if let Some(json) = &options.json {
        // The bench runs at the root of the workspace; a relative path means the caller's folder.
        command.arg("--json").arg(std::path::absolute(json)?);
    }
    run::checked(&mut command)
}

/// What a call through Bay costs.
fn path() -> anyhow::Result<Command> {
    let bay = workspace::build_bay("release")?;
    let micro = workspace::build("bay-plugin-host", ["--example", "path_micro"], "release")?;
    let bench = workspace::build("bay-bench", ["--bin", "bay-bench"], "release")?;
    let python = python::for_tests(&bay)?;
    let mut command = run::command(&bench);
    command.args(["path", "--bay"]).arg(&bay).arg("--path-micro").arg(&micro);
    command.env("BAY_TEST_BIN", &bay).env("BAY_TEST_PYTHON", &python);
    Ok(command)
}

/// What Ship costs by itself, without Bay.
fn ship() -> anyhow::Result<Command> {
    let ship = workspace::build_ship()?;
    let bench = workspace::build_alone("bay-ship-bench", ["--bin", "bay-ship-bench"], "release")?;
    let mut command = run::command(&bench);
    command.env("BAY_TEST_SHIP", &ship).env("BAY_TEST_PYTHON", python::at_hand()?);
    Ok(command)
}

/// What the REST interface holds.
fn api(options: &args::Bench) -> anyhow::Result<Command> {
    let bay = workspace::build_bay("release")?;
    let bench = workspace::build("bay-bench", ["--bin", "bay-bench"], "release")?;
    let python = python::for_tests(&bay)?;
    let mut command = run::command(&bench);
    command.args(["api", "--bay"]).arg(&bay).env("BAY_TEST_BIN", &bay).env("BAY_TEST_PYTHON", &python);
    if options.quick {
        command.arg("--quick");
    }
    if let Some(minutes) = options.minutes {
        command.args(["--minutes", &minutes.to_string()]);
    }
    Ok(command)
}

/// What sandboxes cost on a Docker engine, over that engine's bare API. The engine is that of `BAY_TEST_DOCKER_HOST`, else
/// of `DOCKER_HOST`, else the machine's; it must have the image (`cargo xtask images`).
fn docker() -> anyhow::Result<Command> {
    let bay = workspace::build_bay("release")?;
    let bench = workspace::build("bay-bench", ["--bin", "bay-bench"], "release")?;
    let named = |name: &str| std::env::var(name).ok().filter(|host| !host.is_empty());
    let host = named("BAY_TEST_DOCKER_HOST").or_else(|| named("DOCKER_HOST"));
    let mut command = run::command(&bench);
    command.args(["docker", "--bay"]).arg(&bay).env("BAY_TEST_BIN", &bay).env("BAY_TEST_DRIVER", "docker");
    command.env("BAY_TEST_DOCKER_HOST", host.as_deref().unwrap_or("unix:///var/run/docker.sock"));
    Ok(command)
}
