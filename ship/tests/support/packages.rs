//! Python packages that some tests need inside a container, installed once and kept.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// Exact, so that one cache means one behaviour.
const FIGURES: [&str; 2] = ["matplotlib==3.11.2", "numpy==2.4.6"];

/// A directory for `PYTHONPATH` that has matplotlib. A failed installation fails the test.
pub fn figures() -> PathBuf {
    installed("figures", &FIGURES)
}

/// Keyed by its contents: another list is another directory.
fn installed(name: &str, packages: &[&str]) -> PathBuf {
    // Root's home is closed to the unprivileged user as whom some containers run.
    let cache = if super::is_root() {
        PathBuf::from("/var/cache/bay-test/packages")
    } else {
        std::env::var_os("HOME").map(PathBuf::from).unwrap().join(".cache/bay/test-venvs")
    };
    let key = packages.join("+").replace("==", "-");
    let place = cache.join(format!("{name}-{key}"));
    // Beside the place: of tests that come at once, one installs and the others wait.
    fs::create_dir_all(&cache).unwrap();
    let lock = File::create(cache.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if place.exists() {
        return place;
    }
    let unfinished = cache.join(format!("{name}.unfinished"));
    let _ = fs::remove_dir_all(&unfinished);
    let pip = Command::new(super::venv().join("bin/python3"))
        .args(["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--target"])
        .arg(&unfinished)
        .args(packages)
        .status()
        .unwrap();
    assert!(pip.success(), "pip could not install {packages:?}");
    // Read by the unprivileged user of a container.
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&unfinished, &place).unwrap();
    place
}
