//! Starts Ship under bubblewrap the way the local driver does.
//!
//! As root a test can have both isolations, the nested one as an unprivileged user; as another user only that one.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use bay_ship_api::handshake::Credentials;
use bay_ship_api::init::{DEFAULT_OUTPUT_LIMIT, InitConfig, Isolation, Limits, NetworkSetup};
use tempfile::TempDir;

use crate::client::Client;
use crate::place::{Place, Stream};
use crate::{PATIENCE, wait_for};

/// An unprivileged host user for the nested isolation, when the tests run as root.
const NOBODY: u32 = 65534;
/// The port where a Ship listens that is asked to, each in a network namespace of its own.
const PORT: u16 = 7070;
/// Its address on the wire that leads to its neighbour: see [`NEIGHBOUR`].
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Makes a network with a wire into that of process `$1`, says so, and stays until its input ends. Ship lets nobody in
/// from its own addresses, so whoever dials must be elsewhere.
const NEIGHBOUR: &str = "ip link add out type veth peer name in netns $1 && \
    ip addr add 192.0.2.1/24 dev out && ip link set out up && \
    nsenter --net=/proc/$1/ns/net sh -c 'ip addr add 192.0.2.2/24 dev in && ip link set in up' && \
    echo ready && read -r _";
/// Host id of the sandbox's root in the launcher.
const BASE: u32 = 100_000;

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The isolations that can be tested here.
pub fn isolations() -> Vec<Isolation> {
    if is_root() { vec![Isolation::TwoUid, Isolation::NestedPid] } else { vec![Isolation::NestedPid] }
}

fn required(name: &str, what: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(value) => value.into(),
        None => panic!("{name} must name {what}; `cargo xtask test` sets it"),
    }
}

/// The Python environment that containers get.
pub fn venv() -> PathBuf {
    let venv = required("BAY_TEST_PYTHON", "a Python virtual environment with ipykernel");
    assert!(venv.join("bin/python3").exists(), "BAY_TEST_PYTHON={} has no bin/python3", venv.display());
    venv
}

/// The binary under test.
pub fn ship() -> PathBuf {
    // nextest's own variable knows where a build that was moved lies now.
    if let Some(named) = ["BAY_TEST_SHIP", "NEXTEST_BIN_EXE_ship"].into_iter().find_map(std::env::var_os) {
        return named.into();
    }
    let here = std::env::current_exe().unwrap();
    let beside = here.ancestors().skip(1).take(2).map(|dir| dir.join("ship")).find(|path| path.is_file());
    beside.unwrap_or_else(|| {
        panic!(
            "no `ship` beside {}: `cargo build -p bay-ship` builds it, or BAY_TEST_SHIP names another",
            here.display()
        )
    })
}

/// How to start a container; adjust the fields, then [`Setup::start`].
pub struct Setup {
    /// The start-up message.
    pub config: InitConfig,
    /// Whether there is a Python environment inside.
    pub python: bool,
    /// Host directories that are there read-only, each with its place beneath `/opt/bay`.
    pub shown: Vec<(PathBuf, String)>,
    /// Called while init still waits for its configuration, with its host process id.
    pub before_config: Option<Box<dyn FnOnce(u32) + Send + Sync>>,
    /// Whether Ship listens on a TCP port of its own making, instead of the socket that it is passed. Reaching it takes
    /// root.
    pub tcp: bool,
    dir: TempDir,
}

/// A running container. Ends with its value.
pub struct Container {
    /// What it was started from.
    pub setup: Setup,
    child: Child,
    /// What the handshake proves.
    pub credentials: Credentials,
    neighbour: OnceLock<File>,
}

impl Setup {
    /// Everything a container can have.
    pub fn new(isolation: Isolation) -> Self {
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let setup = Self {
            config: InitConfig {
                session: "ses_test".into(),
                generation: 3,
                token: "5a".repeat(32),
                isolation,
                env: [("GREETING".to_owned(), "from the profile".to_owned())].into(),
                python: Some("/opt/bay/python/bin/python3".into()),
                capabilities: ["python", "shell", "filesystem", "terminal"].map(String::from).into(),
                network: NetworkSetup::None,
                limits: Limits { pids: 256, memory: 8 << 30, nofile: 1024, enforce: false },
                output_limit: DEFAULT_OUTPUT_LIMIT,
            },
            python: true,
            shown: Vec::new(),
            before_config: None,
            tcp: false,
            dir,
        };
        fs::create_dir(setup.workspace()).unwrap();
        setup
    }

    /// The locker on the host.
    pub fn workspace(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    /// What the container wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Starts it; whether it answers is for its client to see.
    pub fn start(mut self) -> Container {
        let before_config = self.before_config.take();
        let mut child = self.spawn();
        if let Some(hook) = before_config {
            hook(wait_for(|| init_of(child.id()), "init to start"));
        }
        let message = serde_json::to_vec(&self.config).unwrap();
        child.stdin.take().unwrap().write_all(&message).unwrap();
        let credentials = Credentials::new([0x5A; 32], "ses_test", 3);
        Container { setup: self, child, credentials, neighbour: OnceLock::new() }
    }

    fn spawn(&self) -> Child {
        let two_uid = self.config.isolation == Isolation::TwoUid;
        if is_root() {
            let (owner, user) = if two_uid { (BASE, BASE + 1000) } else { (NOBODY, NOBODY) };
            chown(self.dir.path(), Some(owner), Some(owner)).unwrap();
            own(&self.workspace(), user);
        }
        let mut argv: Vec<String> = Vec::new();
        if is_root() && !two_uid {
            let id = NOBODY.to_string();
            argv.extend(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(String::from));
        }
        // A copy: the source tree may lie where the other user cannot read.
        let copy = self.dir.path().join("launch.py");
        fs::write(&copy, include_str!("launch.py")).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        let mode = if two_uid { "two_uid" } else { "nested_pid" };
        argv.extend(
            ["/usr/bin/python3", copy.to_str().unwrap(), mode, self.socket().to_str().unwrap()]
                .map(String::from),
        );
        argv.extend(self.bubblewrap());
        let log = File::create(self.dir.path().join("log")).unwrap();
        Command::new(&argv[0])
            .args(&argv[1..])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn bubblewrap(&self) -> Vec<String> {
        let mut out: Vec<String> = vec!["bwrap".into()];
        let mut add = |words: &[&str]| out.extend(words.iter().map(|word| (*word).to_owned()));
        add(&["--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"]);
        add(&["--ro-bind", "/usr", "/usr"]);
        for name in ["bin", "sbin", "lib", "lib64"] {
            add(&["--symlink", &format!("usr/{name}"), &format!("/{name}")]);
        }
        add(&[
            "--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp",
        ]);
        for dir in ["/etc", "/opt", "/opt/bay", "/.bay"] {
            add(&["--perms", "0755", "--dir", dir]);
        }
        add(&["--perms", "0755", "--tmpfs", "/run"]);
        add(&["--bind", self.workspace().to_str().unwrap(), "/workspace"]);
        let ship = self.dir.path().join("ship");
        fs::copy(self::ship(), &ship).unwrap();
        fs::set_permissions(&ship, fs::Permissions::from_mode(0o755)).unwrap();
        add(&["--ro-bind", ship.to_str().unwrap(), "/.bay/ship"]);
        if self.python {
            add(&["--ro-bind", venv().to_str().unwrap(), "/opt/bay/python"]);
        }
        for (from, to) in &self.shown {
            add(&["--ro-bind", from.to_str().unwrap(), to]);
        }
        add(&["--clearenv", "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "LANG", "C.UTF-8"]);
        add(&["--chdir", "/", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]);
        match self.config.isolation {
            Isolation::TwoUid => {
                // The nest does this for itself, and must find its outer /proc uncovered.
                add(&["--ro-bind", "/proc/sys", "/proc/sys"]);
                for cap in ["SETUID", "SETGID", "KILL", "CHOWN", "NET_ADMIN"] {
                    add(&["--cap-add", &format!("CAP_{cap}")]);
                }
            }
            Isolation::NestedPid => add(&["--unshare-user", "--uid", "1000", "--gid", "1000"]),
        }
        add(&["/.bay/ship", "init"]);
        if self.tcp {
            add(&["--listen", &format!("tcp:{PORT}")]);
        }
        out
    }
}

fn own(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path(), id);
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn init_of(bwrap: u32) -> Option<u32> {
    children(bwrap).into_iter().find(|pid| name_of(*pid) == "ship-init")
}

/// Connects to Ship's port from a thread that enters this network for as long as that takes.
fn dial_in(network: &File, address: Ipv4Addr) -> io::Result<TcpStream> {
    std::thread::scope(|scope| {
        let dialled = scope.spawn(|| {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(network.as_fd(), Some(kind))?;
            TcpStream::connect_timeout(&SocketAddr::from((address, PORT)), PATIENCE)
        });
        dialled.join().map_err(|_| io::Error::other("the dialling thread panicked"))?
    })
}

impl Container {
    /// Starts one with everything at its default.
    pub fn new(isolation: Isolation) -> Self {
        Setup::new(isolation).start()
    }

    /// A new connection, once Ship answers.
    pub fn client(&self) -> Client {
        Place::client(self)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.setup.socket()
    }

    /// Host process id of init.
    pub fn init(&self) -> u32 {
        wait_for(|| init_of(self.child.id()), "init")
    }

    /// Connects by TCP from within the container's network, as user code might, to this address of it.
    pub fn dial_inside(&self, address: Ipv4Addr) -> io::Result<TcpStream> {
        dial_in(&File::open(format!("/proc/{}/ns/net", self.init()))?, address)
    }

    /// Its addresses, where it listens on a TCP port.
    pub fn addresses(&self) -> [Ipv4Addr; 2] {
        self.neighbour();
        [Ipv4Addr::LOCALHOST, ADDRESS]
    }

    /// The network beside it; made once, and gone with the container.
    fn neighbour(&self) -> &File {
        self.neighbour.get_or_init(|| {
            let mut made = Command::new("unshare")
                .args(["--net", "sh", "-c", NEIGHBOUR, "sh", &self.init().to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = String::new();
            BufReader::new(made.stdout.take().unwrap()).read_line(&mut said).unwrap();
            let network = File::open(format!("/proc/{}/ns/net", made.id()));
            drop(made.stdin.take());
            made.wait().unwrap();
            assert_eq!(said, "ready\n", "no network beside the container: its error is above");
            network.unwrap()
        })
    }

    /// Host process id of the agent.
    pub fn agent(&self) -> u32 {
        let init = self.init();
        wait_for(|| children(init).into_iter().find(|pid| name_of(*pid) == "ship-agent"), "the agent")
    }

    /// A figure of `/proc/<pid>/status`, in KiB.
    pub fn kib(&self, pid: u32, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends init TERM, as the driver does.
    pub fn terminate(&self) {
        let init = rustix::process::Pid::from_raw(self.init().cast_signed()).unwrap();
        rustix::process::kill_process(init, rustix::process::Signal::TERM).unwrap();
    }

    /// Host process ids of all that lives inside.
    pub fn inside(&self) -> Vec<u32> {
        let mut all = vec![self.init()];
        let mut at = 0;
        while let Some(pid) = all.get(at) {
            all.extend(children(*pid));
            at += 1;
        }
        all
    }

    /// Waits for the end; the exit code of init.
    pub fn exit_code(&mut self) -> Option<i32> {
        wait_for(|| self.ended().then_some(()), "the container to end");
        self.child.wait().unwrap().code()
    }

    /// Whether bubblewrap, and so init, has ended.
    pub fn ended(&self) -> bool {
        // A zombie is ended too: nobody has waited for it yet.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
    }
}

impl Place for Container {
    fn name(&self) -> String {
        let tcp = if self.setup.tcp { ", tcp" } else { "" };
        format!("bare, {:?}{tcp}", self.setup.config.isolation)
    }

    fn isolation(&self) -> Isolation {
        self.setup.config.isolation
    }

    fn dial(&self) -> io::Result<Box<dyn Stream>> {
        if self.setup.tcp {
            return Ok(Box::new(dial_in(self.neighbour(), ADDRESS)?));
        }
        Ok(Box::new(UnixStream::connect(self.socket())?))
    }

    fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    fn ended(&self) -> bool {
        Self::ended(self)
    }

    fn log(&self) -> String {
        self.setup.log()
    }

    fn agent(&self) -> Option<u32> {
        Some(Self::agent(self))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the container:\n{}", self.setup.log());
        }
        if let Some(init) =
            init_of(self.child.id()).and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))
        {
            let _ = rustix::process::kill_process(init, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
