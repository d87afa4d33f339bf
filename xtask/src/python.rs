//! The Python environment that tests and benches share, so that not every test waits for pip.

use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::privilege::is_root;
use crate::{run, workspace};

/// Where root keeps it: sandboxes have other uids and must be able to walk there, which they cannot to `/root`.
const OF_ROOT: &str = "/var/cache/bay-test";

/// Makes it where it is missing, with Bay's own code for that. Every user may read it.
pub(crate) fn for_tests(bay: &Path) -> anyhow::Result<PathBuf> {
    let data_dir =
        if is_root() { OF_ROOT.into() } else { workspace::target_dir()?.join("xtask").join("data") };
    run::checked(run::command(bay).args(["python", "install", "--data-dir"]).arg(&data_dir))?;
    let environment = data_dir.join("python");
    ensure!(environment.join("bin/python3").exists(), "no Python in {}", environment.display());
    Ok(environment)
}
