//! A driver in a directory of its own, and a conversation with what runs inside.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bay_ship_api::init::{DEFAULT_OUTPUT_LIMIT, InitConfig, Isolation, Limits, NetworkSetup};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::*;
use crate::driver::{DockerSpec, Network};

/// Nothing here takes longer on a machine that is merely busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The full name of a test of this suite.
fn test_path(name: &str) -> String {
    let module = module_path!().split_once("::").unwrap().1;
    format!("{}::{name}", module.rsplit_once("::").unwrap().0)
}

/// The command line that runs one test of this binary and nothing else, on its main thread.
pub(super) fn only(name: &str) -> Vec<String> {
    [&test_path(name), "--exact", "--nocapture", "--test-threads=1", "-q", "--include-ignored"]
        .map(str::to_owned)
        .to_vec()
}

/// What makes this binary the launcher, as `bay launch` makes the real one.
const LAUNCH: &str = "launch-for-the-tests-of-the-local-driver";

/// The test harness runs every test on a thread of its own, and no process with a second thread may make a user
/// namespace: so this is run before `main`.
extern "C" fn launch_before_main() {
    if std::env::args().nth(1).as_deref() == Some(LAUNCH) {
        let code = launch_main();
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
}

#[expect(unsafe_code, reason = "a link section is the only way to run before the test harness")]
// SAFETY: the section is the loader's list of functions without arguments that return nothing; ours is one. The standard
// library fills in the program's arguments from an entry of its own that the linker sorts before plain `.init_array`.
#[unsafe(link_section = ".init_array")]
#[used]
static BEFORE_MAIN: extern "C" fn() = launch_before_main;

/// The launcher of this binary.
pub(super) fn launcher() -> Launcher {
    Launcher { program: "/proc/self/exe".into(), args: vec![LAUNCH.to_owned()] }
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A data directory with a driver; whatever still runs in it is destroyed at the end.
pub(super) struct Bay {
    pub(super) driver: LocalDriver,
    pub(super) dir: tempfile::TempDir,
}

pub(super) fn options(dir: &Path) -> LocalOptions {
    LocalOptions {
        data_dir: dir.join("data"),
        ship: dir.join("ship"),
        instance_id: format!("test-{}", dir.file_name().unwrap().to_str().unwrap()),
    }
}

pub(super) fn open(dir: &Path) -> LocalDriver {
    LocalDriver::with_launcher(&options(dir), launcher()).unwrap()
}

impl Bay {
    pub(super) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("bay").tempdir().unwrap();
        let ship = dir.path().join("ship");
        fs::write(&ship, include_bytes!("stand_in.py")).unwrap();
        fs::set_permissions(&ship, fs::Permissions::from_mode(0o755)).unwrap();
        Self { driver: open(dir.path()), dir }
    }

    /// Another Bay on the same data, as after a restart.
    pub(super) fn again(&self) -> LocalDriver {
        open(self.dir.path())
    }

    pub(super) async fn run(&self, name: &str) -> ContainerRef {
        let volume = self.driver.volume_create(&format!("lkr-{name}")).await.unwrap();
        assert_eq!(volume, format!("lkr-{name}"));
        self.run_with(&spec(name), &config()).await
    }

    pub(super) async fn run_with(&self, spec: &ContainerSpec, config: &InitConfig) -> ContainerRef {
        self.driver.volume_create(&spec.volume).await.unwrap();
        let container = self.driver.create(spec).await.unwrap();
        let container =
            self.driver.start(&container, spec, config).await.unwrap_or_else(|error| panic!("{error}"));
        // The kernel drops signals that a pid 1 has no handler for: be sure that the stand-in has come that far.
        self.init(&container, "answer = 1").await;
        container
    }

    /// Runs Python in init, with whatever powers that has.
    pub(super) async fn init(&self, container: &ContainerRef, code: &str) -> Value {
        ask(&self.driver, container, code, false).await
    }

    /// Runs Python as user code.
    pub(super) async fn user(&self, container: &ContainerRef, code: &str) -> Value {
        ask(&self.driver, container, code, true).await
    }
}

impl Drop for Bay {
    fn drop(&mut self) {
        let driver = self.driver.clone();
        let destroy = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for container in driver.list().await.unwrap() {
                    driver.destroy(&container).await.unwrap();
                }
            });
            for parent in driver.inner.cgroups.parents_for_tests() {
                // Empty, or gone already with another driver of the same Bay.
                let left = fs::read_dir(&parent).into_iter().flatten().flatten();
                let left: Vec<_> =
                    left.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect();
                assert!(left.is_empty(), "{left:?}");
            }
        });
        let outcome = destroy.join();
        if !std::thread::panicking() {
            outcome.unwrap();
        }
    }
}

pub(super) fn spec(name: &str) -> ContainerSpec {
    ContainerSpec {
        port: 8123,
        output: 64 << 20,
        docker: DockerSpec::default(),
        name: name.to_owned(),
        role: "ship".to_owned(),
        image: None,
        cpus: 1.0,
        memory: 256 << 20,
        pids: 128,
        network: Network::None,
        volume: format!("lkr-{name}"),
        labels: BTreeMap::new(),
        rootfs: "host".to_owned(),
        python: "auto".to_owned(),
    }
}

pub(super) fn config() -> InitConfig {
    InitConfig {
        session: "ses_1".to_owned(),
        generation: 1,
        token: "00".repeat(32),
        isolation: Isolation::TwoUid,
        env: BTreeMap::new(),
        python: None,
        capabilities: vec!["shell".to_owned()],
        network: NetworkSetup::Enforced,
        limits: Limits { pids: 64, memory: 1 << 30, nofile: 256, enforce: false },
        output_limit: DEFAULT_OUTPUT_LIMIT,
    }
}

pub(super) async fn ask(driver: &LocalDriver, container: &ContainerRef, code: &str, as_user: bool) -> Value {
    let exchange = async {
        let mut stream = driver.dial(container, 8123).await.unwrap();
        let mut request = serde_json::to_vec(&json!({"code": code, "as_user": as_user})).unwrap();
        request.push(b'\n');
        stream.write_all(&request).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        reply
    };
    let reply = tokio::time::timeout(PATIENCE, exchange).await.expect("the stand-in answers");
    let log = driver.logs(container, 4000).await.unwrap();
    let reply: Value = serde_json::from_slice(&reply)
        .unwrap_or_else(|error| panic!("{error}: {:?}; log: {}", reply, String::from_utf8_lossy(&log)));
    assert!(reply.get("error").is_none(), "{reply:#}");
    reply["answer"].clone()
}

/// True once `check` is, within [`PATIENCE`].
pub(super) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

/// This binary and a place for temporary files, both for a user who is nobody on this machine.
pub(super) struct OtherUser {
    dir: tempfile::TempDir,
}

impl OtherUser {
    const ID: u32 = 61_234;

    pub(super) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("bayuser").tempdir().unwrap();
        let open_to_all = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        open_to_all(dir.path());
        // Where this binary was built need not be open to others.
        let binary = dir.path().join("tests");
        fs::copy("/proc/self/exe", &binary).unwrap();
        open_to_all(&binary);
        let temporary = dir.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        std::os::unix::fs::chown(&temporary, Some(Self::ID), Some(Self::ID)).unwrap();
        Self { dir }
    }

    /// This binary, to be run as that user.
    pub(super) fn command(&self) -> std::process::Command {
        let id = Self::ID.to_string();
        let mut command = std::process::Command::new("setpriv");
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
            .arg(self.dir.path().join("tests"));
        command.env_clear().env("PATH", bwrap::PATH).env("TMPDIR", self.dir.path().join("tmp"));
        command.current_dir("/").stdin(std::process::Stdio::null());
        command
    }
}
