//! The Python environment that tests and benches share, so that not every test waits for pip.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::privilege::is_root;
use crate::{run, workspace};

/// Where root keeps it: apart from the target directory, so that it can be shown to the test user by itself.
const OF_ROOT: &str = "/var/cache/bay-test";

/// One that is there already, or else makes it: only that takes `bay`, which takes minutes to build.
pub(crate) fn at_hand() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("BAY_TEST_PYTHON").map(PathBuf::from);
    let made = data_dir()?.join("python").join("current");
    match [named, Some(made)].into_iter().flatten().find(|place| place.join("bin/python3").exists()) {
        Some(place) => Ok(place),
        None => for_tests(&workspace::build_bay("dev")?),
    }
}

fn data_dir() -> anyhow::Result<PathBuf> {
    Ok(if is_root() { OF_ROOT.into() } else { workspace::target_dir()?.join("xtask").join("data") })
}

/// Makes it where it is missing, with Bay's own code for that.
pub(crate) fn for_tests(bay: &Path) -> anyhow::Result<PathBuf> {
    let data_dir = data_dir()?;
    println!("making sure of a Python with ipykernel in {}", data_dir.display());
    let said = run::output(run::command(bay).args(["python", "install", "--data-dir"]).arg(&data_dir))?;
    let environment = PathBuf::from(said.lines().last().unwrap_or_default());
    ensure!(environment.join("bin/python3").exists(), "`bay python install` made no Python: {said}");
    // A data directory is private, but what tests start by themselves is as unprivileged as a sandbox is.
    for place in environment.ancestors().skip(1).take_while(|place| place.starts_with(&data_dir)) {
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(environment)
}
