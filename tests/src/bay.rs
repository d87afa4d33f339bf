//! The real binary, started on a data directory of its own.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::api::Client;
use crate::config::Options;
use crate::containers::Containers;
use crate::http::Request;
use crate::leaks::Held;
use crate::subnet::Subnet;
use crate::{http, leaks, plugin_cache, procs, until};

/// From start to the first healthy answer. Generous: the first start of all compiles the plugins.
const START: Duration = Duration::from_secs(60);
/// From SIGTERM to the end.
const STOP: Duration = Duration::from_secs(20);
/// What the log says once Bay listens.
const LISTENING: &str = "listening on http://";

/// A running Bay. Dropping it deletes every sandbox, stops it, and fails the test when something is left behind.
#[derive(Debug)]
pub struct Bay {
    child: Option<Child>,
    addr: SocketAddr,
    key: Option<String>,
    tenant_keys: Vec<(String, String)>,
    home: Option<TempDir>,
    options: Options,
    /// Locked as long as this test lives.
    _alive: Option<File>,
    _subnet: Option<Subnet>,
}

/// A Bay that would not start.
#[derive(Debug)]
pub struct Refused {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said.
    pub log: String,
}

impl Bay {
    /// Starts one.
    #[track_caller]
    pub fn start(options: Options) -> Self {
        match Self::try_start(options) {
            Ok(bay) => bay,
            Err(refused) => panic!("bay would not start ({}):\n{}", refused.status, refused.log),
        }
    }

    /// Takes the Bay that `BAY_TEST_BASE_URL` and `BAY_TEST_API_KEY` name, else starts one.
    pub fn any() -> Self {
        let Ok(url) = std::env::var("BAY_TEST_BASE_URL") else { return Self::start(Options::default()) };
        let addr = url.trim_start_matches("http://").trim_end_matches('/').parse();
        Self {
            child: None,
            addr: addr.unwrap_or_else(|e| panic!("BAY_TEST_BASE_URL={url} is not http://ADDRESS:PORT: {e}")),
            key: std::env::var("BAY_TEST_API_KEY").ok(),
            tenant_keys: Vec::new(),
            home: None,
            options: Options::default(),
            _alive: None,
            _subnet: None,
        }
    }

    /// Starts one that may refuse its configuration.
    ///
    /// # Errors
    /// How it ended and what it said, when it ended instead of listening.
    pub fn try_start(options: Options) -> Result<Self, Refused> {
        // Bay makes its data directory itself, with whatever rights it thinks right; what is above must let a
        // sandbox's uid through.
        leaks::sweep();
        let home = tempfile::Builder::new().prefix(leaks::PREFIX).tempdir().expect("a temporary directory");
        let alive = leaks::mark_alive(home.path());
        open_to_all(home.path());
        std::fs::create_dir(home.path().join("profiles")).expect("make profiles/");
        for profile in &options.profiles {
            let file = home.path().join("profiles").join(format!("{}.toml", profile.id));
            std::fs::write(file, profile.toml()).expect("write a profile");
        }
        for (path, content) in &options.files {
            let file = home.path().join(path);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("make a directory");
            std::fs::write(file, content).expect("write a file");
        }
        let subnet = options.engine().map(|_| Subnet::claim());
        let config = options.bay_toml(home.path(), subnet.as_ref().map(|s| s.pool.as_str()));
        std::fs::write(home.path().join("bay.toml"), config).expect("write bay.toml");
        plugin_cache::lend(&home.path().join("data"));
        let mut bay = Self {
            child: None,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            key: None,
            tenant_keys: Vec::new(),
            home: Some(home),
            options,
            _alive: Some(alive),
            _subnet: subnet,
        };
        bay.tenant_keys = bay.options.tenants.iter().map(|t| (t.clone(), bay.create_key(t))).collect();
        if !bay.tenant_keys.is_empty() {
            // Bay makes a first key only where there is none.
            bay.key = Some(bay.create_key("default"));
        }
        bay.launch(None)?;
        plugin_cache::keep(&bay.data_dir());
        let written = std::fs::read_to_string(bay.home().join("key")).ok();
        bay.key = bay.key.take().or_else(|| written.map(|k| k.trim().to_owned()).filter(|k| !k.is_empty()));
        Ok(bay)
    }

    /// Speaks to it with the key of its first start.
    pub fn api(&self) -> Client {
        Client::new(self.addr, self.key.as_deref())
    }

    /// Speaks to it without a key.
    pub fn anonymous(&self) -> Client {
        Client::new(self.addr, None)
    }

    /// Speaks to it as a tenant named in the options.
    pub fn as_tenant(&self, tenant: &str) -> Client {
        Client::new(self.addr, Some(self.key_of(tenant)))
    }

    /// The key of its first start.
    pub fn key(&self) -> &str {
        self.key.as_deref().expect("a Bay with a key")
    }

    /// The key of a tenant named in the options.
    pub fn key_of(&self, tenant: &str) -> &str {
        let key = self.tenant_keys.iter().find(|(t, _)| t == tenant);
        &key.unwrap_or_else(|| panic!("no key was made for {tenant}")).1
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("a Bay of this test");
        i32::try_from(child.id()).expect("a pid")
    }

    /// Where `bay.toml`, `profiles/`, `data/`, `key` and `log` lie.
    pub fn home(&self) -> &Path {
        self.home.as_ref().expect("a Bay of this test").path()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.home().join("data")
    }

    /// Everything it logged since the first start.
    pub fn log(&self) -> String {
        std::fs::read(self.home().join("log"))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// What it has on its Docker engine; none on another driver.
    pub fn containers(&self) -> Option<Containers> {
        let engine = self.options.engine()?;
        Some(Containers::of(engine, &self.data_dir()).expect("a Bay that has started has made its secret"))
    }

    /// The processes of its sandboxes.
    pub fn processes(&self) -> Vec<procs::Process> {
        if let Some(containers) = self.containers() {
            return containers.processes();
        }
        procs::of_dir(self.home(), self.child_pid())
    }

    /// The processes of the sandbox with this locker.
    pub fn processes_of(&self, locker: &str) -> Vec<procs::Process> {
        assert!(locker.starts_with("lkr_"), "{locker}");
        if let Some(containers) = self.containers() {
            return containers.processes_of(locker);
        }
        procs::of_dir(&leaks::locker_dir(&self.data_dir(), locker), self.child_pid())
    }

    fn child_pid(&self) -> Option<i32> {
        self.child.as_ref().and_then(|c| i32::try_from(c.id()).ok())
    }

    /// Kills it with SIGKILL; its sandboxes run on.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running Bay");
        child.kill().expect("kill Bay");
        child.wait().expect("reap Bay");
    }

    /// Ends it with SIGTERM.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running Bay");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal Bay");
        let mut end = None;
        let ended = crate::soon(STOP, || {
            end = child.try_wait().expect("wait for Bay");
            end.is_some()
        });
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
            panic!("Bay did not end within {STOP:?} of SIGTERM:\n{}", self.log_tail());
        }
        end.expect("an exit status")
    }

    /// Starts it again on the same data directory and address.
    #[track_caller]
    pub fn start_again(&mut self) {
        if let Err(refused) = self.launch(Some(self.addr)) {
            panic!("bay would not start again ({}):\n{}", refused.status, refused.log);
        }
    }

    /// Makes a key for a tenant with the CLI, while Bay does not run.
    #[track_caller]
    pub fn create_key(&self, tenant: &str) -> String {
        let made = bay_command()
            .args(["key", "create", "--tenant", tenant, "--data-dir"])
            .arg(self.data_dir())
            .output()
            .expect("run bay key create");
        let said = String::from_utf8_lossy(&made.stdout).into_owned();
        let cause = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(made.status.success(), "bay key create: {}\n{said}\n{cause}", made.status);
        let key = said.split_whitespace().find(|w| w.starts_with("bay_"));
        key.unwrap_or_else(|| panic!("bay key create printed no key: {said}")).to_owned()
    }

    fn launch(&mut self, address: Option<SocketAddr>) -> Result<(), Refused> {
        let before = self.log().len();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home().join("log"))
            .expect("open the log file");
        let mut command = bay_command();
        command
            .arg("serve")
            .arg("--config")
            .arg(self.home().join("bay.toml"))
            .arg("--key-file")
            .arg(self.home().join("key"))
            .envs(self.options.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        if let Some(address) = address {
            command.env("BAY_SERVER__LISTEN", address.to_string());
        }
        let mut child = command.spawn().expect("start bay");
        let mut ended = None;
        let found = until("Bay listens, or ends", START, || {
            let log = self.log();
            let fresh = log.get(before..).unwrap_or_default();
            ended = child.try_wait().expect("look at Bay");
            match address_in(fresh) {
                Some(addr) => Some(Some(addr)),
                None => ended.map(|_| None),
            }
        });
        let Some(addr) = found else {
            let log = self.log().get(before..).unwrap_or_default().to_owned();
            return Err(Refused { status: ended.expect("an exit status"), log });
        };
        self.child = Some(child);
        self.addr = addr;
        let health = Request {
            method: "GET".into(),
            target: "/health".into(),
            headers: vec![("Host".into(), addr.to_string())],
            body: None,
        };
        until("/health answers", START, || {
            http::send(addr, &health, Duration::from_secs(5)).ok().filter(|r| r.status == 200)
        });
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(80)..].join("\n")
    }

    /// Deletes every sandbox through the API, whoever's it is.
    fn delete_all(&self) -> Result<(), String> {
        let mut keys: Vec<Option<&str>> = self.tenant_keys.iter().map(|(_, k)| Some(k.as_str())).collect();
        keys.push(self.key.as_deref());
        for key in keys {
            let client = Client::new(self.addr, key);
            let list = client.get("/v1/sandboxes?limit=200").try_send().map_err(|e| e.to_string())?;
            if list.status != 200 {
                return Err(format!("list of sandboxes: {} {}", list.status, list.brief()));
            }
            for item in list.json()["items"].as_array().into_iter().flatten() {
                let id = item["id"].as_str().unwrap_or_default();
                let gone = client.call("DELETE", &format!("/v1/sandboxes/{id}")).try_send();
                let gone = gone.map_err(|e| e.to_string())?;
                if gone.status != 204 {
                    return Err(format!("delete of {id}: {} {}", gone.status, gone.brief()));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Bay {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let data = home.path().join("data");
        // Without a secret it never came so far as to make anything; without its engine nothing can be looked at.
        let engine = self.options.engine().filter(|e| e.answers() || !std::thread::panicking());
        let containers = engine.and_then(|engine| Containers::of(engine, &data));
        let processes =
            if containers.is_some() { Vec::new() } else { procs::of_dir(home.path(), self.child_pid()) };
        let held = Held::by(&processes, containers.clone());
        let deleted = if self.child.is_some() { self.delete_all() } else { Ok(()) };
        let mut left = leaks::look(home.path(), &data, self.child_pid(), &held);
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            if !crate::soon(STOP, || matches!(child.try_wait(), Ok(Some(_)))) {
                left.push(format!("Bay itself: no end within {STOP:?} of SIGTERM"));
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        for process in procs::of_dir(home.path(), None) {
            process.kill();
        }
        if let Some(containers) = containers.filter(|_| !left.is_empty()) {
            containers.remove_all();
        }
        if std::thread::panicking() {
            eprintln!("--- Bay's log, its end ---\n{}\n--- end of Bay's log ---", self.log_tail());
            if !left.is_empty() {
                eprintln!("left behind: {}", left.join("; "));
            }
        } else {
            assert!(deleted.is_ok(), "cleaning up: {deleted:?}\n{}", self.log_tail());
            assert!(left.is_empty(), "left behind: {}\n{}", left.join("; "), self.log_tail());
        }
    }
}

/// The binary under test, with an environment that hides this machine's own configuration.
pub fn bay_command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BAY_") {
            command.env_remove(name);
        }
    }
    command
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("BAY_TEST_BIN") {
        let path = PathBuf::from(path);
        assert!(path.exists(), "BAY_TEST_BIN={} does not exist", path.display());
        return path;
    }
    let here = std::env::current_exe().expect("the test's own path");
    let path = here.ancestors().nth(2).expect("a target directory").join("bay");
    assert!(
        path.exists(),
        "{} does not exist: `cargo build -p bay` builds it, or BAY_TEST_BIN names another",
        path.display()
    );
    path
}

fn address_in(log: &str) -> Option<SocketAddr> {
    let rest = &log[log.find(LISTENING)? + LISTENING.len()..];
    // Not before the line is whole: half an address parses too.
    let end = rest.find(|c: char| !(c.is_ascii_digit() || ".:[]abcdef".contains(c)))?;
    rest[..end].parse().ok()
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("open the directory");
}
