//! The Python environment that tests and benches share, so that not every test waits for pip.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::privilege::is_root;
use crate::{run, setup, workspace};

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
    open_to_all(&environment, &data_dir)?;
    Ok(environment)
}

/// A data directory is private, but what tests start by themselves is as unprivileged as a sandbox is.
fn open_to_all(environment: &Path, data_dir: &Path) -> anyhow::Result<()> {
    for place in environment.ancestors().skip(1).take_while(|place| place.starts_with(data_dir)) {
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// What holds Bay against its own document, as `tests/tests/contract/requirements.txt` names it. Apart from the
/// Python of sandboxes: none of it is theirs.
pub(crate) fn contract_tools() -> anyhow::Result<PathBuf> {
    let listed = workspace::root().join("tests/tests/contract/requirements.txt");
    let text = std::fs::read_to_string(&listed).with_context(|| format!("read {}", listed.display()))?;
    let data_dir = data_dir()?;
    let environment = data_dir.join("contract");
    // Written last: an environment that was made half is made again.
    let made = environment.join("made-of");
    if std::fs::read_to_string(&made).is_ok_and(|made| made == text) {
        return Ok(environment);
    }
    println!("installing the tools of the contract's tests in {}", environment.display());
    std::fs::create_dir_all(&data_dir)?;
    run::checked(run::command(setup::SYSTEM_PYTHON).args(["-I", "-m", "venv", "--clear"]).arg(&environment))?;
    run::checked(
        run::command(environment.join("bin/python3"))
            .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "-r"])
            .arg(&listed),
    )?;
    std::fs::write(made, text)?;
    open_to_all(&environment, &data_dir)?;
    Ok(environment)
}
