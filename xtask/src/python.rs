//! The Python environment that tests and benches share, so that not every test waits for pip.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::privilege::is_root;
use crate::{run, workspace};

/// Where root keeps it: apart from the target directory, so that it can be shown to the test user by itself.
const OF_ROOT: &str = "/var/cache/bay-test";

/// Makes it where it is missing, with Bay's own code for that.
pub(crate) fn for_tests(bay: &Path) -> anyhow::Result<PathBuf> {
    let data_dir =
        if is_root() { OF_ROOT.into() } else { workspace::target_dir()?.join("xtask").join("data") };
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
