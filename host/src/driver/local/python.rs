//! The Python that sandboxes get: a virtual environment in the data directory, shown read-only at `/opt/bay/python`.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

use super::bwrap::PYTHON_DIR;
use super::command;
use super::state::valid_name;
use crate::driver::DriverError;

/// The host's interpreter: the one in `/usr`, which is there inside too.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";
/// What is installed.
const REQUIREMENTS: [&str; 1] = ["ipykernel>=6.29,<8"];
/// Making the environment itself.
const VENV_LIMIT: Duration = Duration::from_secs(120);
/// Downloading and installing, over a slow line.
const PIP_LIMIT: Duration = Duration::from_secs(900);
/// Starting an interpreter to ask it something.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// The name of the environment in use is in this file.
const CURRENT: &str = "current";

/// Which Python a sandbox gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// A virtual environment, mounted.
    Venv(PathBuf),
    /// The host's, which has ipykernel.
    System,
    /// None with ipykernel.
    None,
}

impl Choice {
    /// The interpreter as seen inside.
    pub(super) fn interpreter(&self) -> Option<String> {
        match self {
            Self::Venv(_) => Some(format!("{PYTHON_DIR}/bin/python3")),
            Self::System => Some(SYSTEM_PYTHON.to_owned()),
            Self::None => None,
        }
    }
}

/// What `python = "auto"` means now: the environment of the data directory, else the host's interpreter if it has
/// ipykernel.
pub(super) fn automatic(data_dir: &Path, system_has_kernel: bool) -> Choice {
    match current(data_dir) {
        Some(venv) => Choice::Venv(venv),
        None if system_has_kernel => Choice::System,
        None => Choice::None,
    }
}

fn current(data_dir: &Path) -> Option<PathBuf> {
    let base = data_dir.join("python");
    let name = fs::read_to_string(base.join(CURRENT)).ok()?;
    let name = name.trim();
    // A file anyone may have edited still names no other place.
    let venv = valid_name(name).then(|| base.join(name))?;
    check(&venv).ok()?;
    Some(venv)
}

/// Checks that an environment works inside: its interpreter must be one of `/usr`.
pub(super) fn check(venv: &Path) -> Result<(), String> {
    let interpreter = venv.join("bin/python3");
    let real =
        fs::canonicalize(&interpreter).map_err(|error| format!("{}: {error}", interpreter.display()))?;
    if real.starts_with("/usr") {
        Ok(())
    } else {
        Err(format!(
            "{} leads to {}, which no sandbox can see; make the environment with {SYSTEM_PYTHON}",
            interpreter.display(),
            real.display()
        ))
    }
}

/// True when the host's own interpreter can import ipykernel.
pub(super) fn system_has_kernel() -> bool {
    Path::new(SYSTEM_PYTHON).is_file()
        && command::run("python3", &["-I", "-c", "import ipykernel"], None, ASK_LIMIT).is_ok()
}

/// Makes the virtual environment with ipykernel in `data_dir/python` unless it is there, and returns its directory.
///
/// Safe to call from several processes at once: one installs, the others wait. Downloads from the package index that
/// pip is configured for. Blocks for as long as that takes.
pub fn ensure_python(data_dir: &Path) -> Result<PathBuf, DriverError> {
    if !Path::new(SYSTEM_PYTHON).is_file() {
        return Err(DriverError::Unavailable {
            message: format!("{SYSTEM_PYTHON} is not there"),
            remedy: "install it: apt install python3 python3-venv".to_owned(),
        });
    }
    install(data_dir).map_err(|error| DriverError::Unavailable {
        message: format!("the Python environment could not be made: {error}"),
        remedy: "is python3-venv installed (apt install python3-venv), and the package index within reach?"
            .to_owned(),
    })
}

fn install(data_dir: &Path) -> io::Result<PathBuf> {
    let base = data_dir.join("python");
    fs::create_dir_all(&base)?;
    let lock = fs::OpenOptions::new().create(true).append(true).open(base.join("lock"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    let version = command::run("python3", &["-I", "-VV"], None, ASK_LIMIT)?;
    let mut hash = Sha256::new();
    hash.update(&version);
    for requirement in REQUIREMENTS {
        hash.update(requirement);
    }
    let name = format!("venv-{}", &hex::encode(hash.finalize())[..12]);
    let target = base.join(&name);
    if check(&target).is_err() {
        let aside = tempfile::Builder::new().prefix(".new-").tempdir_in(&base)?;
        let venv = aside.path().join("venv");
        build(&venv)?;
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::rename(&venv, &target)?;
    }
    let mut note = tempfile::NamedTempFile::new_in(&base)?;
    note.write_all(name.as_bytes())?;
    note.persist(base.join(CURRENT)).map_err(|error| error.error)?;
    Ok(target)
}

fn build(venv: &Path) -> io::Result<()> {
    let mut make = command::clean(Path::new(SYSTEM_PYTHON));
    make.args(["-I", "-m", "venv"]).arg(venv);
    command::run_command(make, None, VENV_LIMIT)?;
    let mut pip = command::clean(&venv.join("bin/python3"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--quiet",
    ]);
    pip.args(REQUIREMENTS);
    // The operator's own settings decide where packages come from and through which proxy.
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let proxy = text.to_ascii_lowercase();
        if text.starts_with("PIP_")
            || text == "HOME"
            || matches!(proxy.as_str(), "http_proxy" | "https_proxy" | "no_proxy" | "all_proxy")
            || matches!(text.as_ref(), "SSL_CERT_FILE" | "REQUESTS_CA_BUNDLE")
        {
            pip.env(name, value);
        }
    }
    command::run_command(pip, None, PIP_LIMIT)?;
    relocate(venv)?;
    open_to_all(venv)
}

/// Scripts name the place where they were made; inside, that is another.
fn relocate(venv: &Path) -> io::Result<()> {
    let old = [b"#!", venv.as_os_str().as_bytes(), b"/"].concat();
    let new = format!("#!{PYTHON_DIR}/");
    for entry in fs::read_dir(venv.join("bin"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or(OsStr::new("")).to_string_lossy().into_owned();
        if name.to_ascii_lowercase().starts_with("activate") {
            // They set the old place as an environment variable, and nobody activates anything inside.
            fs::remove_file(&path)?;
            continue;
        }
        if !fs::symlink_metadata(&path)?.is_file() {
            continue;
        }
        let mut text = Vec::new();
        fs::File::open(&path)?.take(1 << 20).read_to_end(&mut text)?;
        if let Some(rest) = text.strip_prefix(old.as_slice()) {
            fs::write(&path, [new.as_bytes(), rest].concat())?;
        }
    }
    Ok(())
}

/// Sandbox users are others: whatever the umask was, they must be able to read all of it.
fn open_to_all(directory: &Path) -> io::Result<()> {
    let mut stack = vec![directory.to_owned()];
    while let Some(directory) = stack.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                stack.push(entry.path());
            } else if kind.is_file() {
                let mode = entry.metadata()?.permissions().mode();
                let wanted = mode | 0o444 | if mode & 0o100 == 0 { 0 } else { 0o111 };
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(wanted & 0o755))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn fake(base: &Path, interpreter: &str) {
        fs::create_dir_all(base.join("bin")).unwrap();
        symlink(interpreter, base.join("bin/python3")).unwrap();
    }

    #[test]
    fn an_environment_of_a_python_outside_usr_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("python3"), "").unwrap();
        fake(&dir.path().join("bad"), dir.path().join("python3").to_str().unwrap());
        fake(&dir.path().join("good"), "/usr/bin/env");
        assert!(check(&dir.path().join("good")).is_ok());
        assert!(check(&dir.path().join("bad")).unwrap_err().contains("no sandbox can see"));
        assert!(check(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn automatic_prefers_the_data_directory_and_believes_no_strange_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(automatic(dir.path(), false), Choice::None);
        assert_eq!(automatic(dir.path(), true).interpreter().unwrap(), SYSTEM_PYTHON);
        let base = dir.path().join("python");
        fake(&base.join("venv-1"), "/usr/bin/env");
        fs::write(base.join(CURRENT), "venv-1").unwrap();
        let chosen = automatic(dir.path(), true);
        assert_eq!(chosen, Choice::Venv(base.join("venv-1")));
        assert_eq!(chosen.interpreter().unwrap(), "/opt/bay/python/bin/python3");
        fs::write(base.join(CURRENT), "../../etc").unwrap();
        assert_eq!(automatic(dir.path(), false), Choice::None);
    }

    #[test]
    fn scripts_are_moved_to_where_they_will_be() {
        let dir = tempfile::tempdir().unwrap();
        let venv = dir.path().join("venv");
        fake(&venv, "/usr/bin/env");
        fs::write(venv.join("bin/tool"), format!("#!{}/bin/python3\nx", venv.display())).unwrap();
        fs::write(venv.join("bin/other"), "#!/bin/sh\n").unwrap();
        fs::write(venv.join("bin/activate"), "VIRTUAL_ENV=x").unwrap();
        fs::set_permissions(venv.join("bin/tool"), fs::Permissions::from_mode(0o700)).unwrap();
        relocate(&venv).unwrap();
        open_to_all(&venv).unwrap();
        assert_eq!(fs::read_to_string(venv.join("bin/tool")).unwrap(), "#!/opt/bay/python/bin/python3\nx");
        assert_eq!(fs::read_to_string(venv.join("bin/other")).unwrap(), "#!/bin/sh\n");
        assert!(!venv.join("bin/activate").exists());
        assert_eq!(fs::metadata(venv.join("bin/tool")).unwrap().permissions().mode() & 0o777, 0o755);
    }
}
