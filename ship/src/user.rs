//! What user processes see: their environment and where they start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bay_ship_api::WORKSPACE;
use bay_ship_api::init::InitConfig;

const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Links that lead to one interpreter; more are a circle.
const MAX_LINKS: usize = 8;

/// Variables that would change how an interpreter *starts*. The shell gets them as they are; the kernel only once
/// it is ready, so that nothing beneath `/workspace` has a say before.
const START_PREFIXES: [&str; 5] = ["PYTHON", "IPYTHON", "JUPYTER", "JPY_", "LD_"];

/// What every user process is started with.
#[derive(Debug, Clone)]
pub(crate) struct World {
    /// Ship's own values.
    base: BTreeMap<String, String>,
    /// The profile's and the sandbox's.
    given: BTreeMap<String, String>,
    /// Absolute path of the Python interpreter, where there is one.
    pub(crate) python: Option<String>,
    /// `/bin/bash`, or `/bin/sh` where there is none.
    pub(crate) shell: Option<&'static str>,
}

impl World {
    /// Looks at what the container has.
    pub(crate) fn new(config: &InitConfig) -> Self {
        let python = match &config.python {
            Some(path) => Some(path.clone()).filter(|path| Path::new(path).exists()),
            None => SYSTEM_PATH
                .split(':')
                .map(|dir| Path::new(dir).join("python3"))
                .find(|path| path.exists())
                .map(through_links)
                .and_then(|path| path.to_str().map(str::to_owned)),
        };
        let shell = ["/bin/bash", "/bin/sh"].into_iter().find(|path| Path::new(path).exists());
        // A virtual environment's programs go before the system's.
        let path = python
            .as_deref()
            .and_then(|python| Path::new(python).parent()?.to_str())
            .filter(|dir| !SYSTEM_PATH.split(':').any(|known| known == *dir) && !dir.contains(':'))
            .map_or_else(|| SYSTEM_PATH.to_owned(), |dir| format!("{dir}:{SYSTEM_PATH}"));
        let base = [
            ("PATH", path.as_str()),
            ("HOME", WORKSPACE),
            ("USER", "shipyard"),
            ("LOGNAME", "shipyard"),
            ("SHELL", shell.unwrap_or("/bin/sh")),
            ("LANG", "C.UTF-8"),
            ("IPYTHONDIR", "/tmp/.ipython"),
            ("JUPYTER_CONFIG_DIR", "/tmp/.jupyter/config"),
            ("JUPYTER_DATA_DIR", "/tmp/.jupyter/data"),
            ("JUPYTER_RUNTIME_DIR", "/tmp/.jupyter/run"),
            ("MPLCONFIGDIR", "/tmp/.matplotlib"),
        ];
        let base = base.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { base, given: config.env.clone(), python, shell }
    }

    /// The environment of a shell command, with what the call adds.
    pub(crate) fn shell_env(&self, extra: &BTreeMap<String, String>) -> Vec<Vec<u8>> {
        let mut all = self.base.clone();
        all.extend(self.given.clone());
        all.extend(extra.clone());
        strings(&all)
    }

    /// The environment a kernel starts with; `private` is a directory of this kernel's own.
    pub(crate) fn kernel_env(&self, private: &str) -> Vec<Vec<u8>> {
        let mut all = self.base.clone();
        for (name, value) in &self.given {
            if !changes_a_start(name) {
                all.insert(name.clone(), value.clone());
            }
        }
        for (name, folder) in [
            ("IPYTHONDIR", "ipython"),
            ("JUPYTER_CONFIG_DIR", "config"),
            ("JUPYTER_DATA_DIR", "data"),
            ("JUPYTER_RUNTIME_DIR", "run"),
        ] {
            all.insert(name.to_owned(), format!("{private}/{folder}"));
        }
        // A newer Python's debugger imports readline, which would read `.inputrc` in the workspace, or wait for ever
        // where that is a FIFO.
        all.insert("INPUTRC".to_owned(), "/dev/null".to_owned());
        strings(&all)
    }

    /// What was kept back from [`World::kernel_env`], for the kernel to take over once it is ready.
    pub(crate) fn withheld(&self) -> BTreeMap<&str, &str> {
        self.given
            .iter()
            .filter(|(name, _)| changes_a_start(name))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
}

/// The interpreter of a virtual environment, where a link such as `/usr/local/bin/python3` leads to one: started by the
/// link's own name it would not find its packages.
fn through_links(python: PathBuf) -> PathBuf {
    let mut at = python.clone();
    for _ in 0..MAX_LINKS {
        let folder = at.parent().unwrap_or(Path::new("/"));
        if folder.join("../pyvenv.cfg").exists() || folder.join("pyvenv.cfg").exists() {
            return at;
        }
        match std::fs::read_link(&at) {
            Ok(target) => at = folder.join(target),
            Err(_) => break,
        }
    }
    python
}

fn changes_a_start(name: &str) -> bool {
    START_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn strings(all: &BTreeMap<String, String>) -> Vec<Vec<u8>> {
    all.iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_into_a_virtual_environment_is_followed_to_it_and_no_further() {
        let dir = tempfile::TempDir::new().unwrap();
        let at = |path: &str| dir.path().join(path);
        for folder in ["system", "venv", "venv/bin", "bin"] {
            fs::create_dir(at(folder)).unwrap();
        }
        fs::write(at("system/python3.11"), "").unwrap();
        symlink("python3.11", at("system/python3")).unwrap();
        symlink(at("system/python3"), at("venv/bin/python3")).unwrap();
        symlink("../venv/bin/python3", at("bin/python3")).unwrap();
        // No environment anywhere: the name that was found.
        assert_eq!(through_links(at("bin/python3")), at("bin/python3"));
        fs::write(at("venv/pyvenv.cfg"), "").unwrap();
        assert_eq!(through_links(at("bin/python3")), at("bin/../venv/bin/python3"));
        assert_eq!(through_links(at("venv/bin/python3")), at("venv/bin/python3"));
        assert_eq!(through_links(at("system/python3")), at("system/python3"));
        symlink("circle", at("circle")).unwrap();
        assert_eq!(through_links(at("circle")), at("circle"));
    }
}
