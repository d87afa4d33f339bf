//! Starting Bay as a process of its own, finding it again, and ending it.

use std::fs::{DirBuilder, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::client::{Call, Client};
use super::show::quoted;
use super::{Driver, QuickstartError, io};

/// Bay's own port.
const PORT: u16 = 8114;
/// From start to the first answer. The first start of all compiles the plugins.
const START: Duration = Duration::from_secs(90);
/// From SIGTERM to the end.
const STOP: Duration = Duration::from_secs(30);
/// How long one look rests before the next.
const INTERVAL: Duration = Duration::from_millis(25);
/// What the log says once Bay listens.
const LISTENING: &str = "listening on http://";
/// How much of a log is worth showing.
const TAIL: u64 = 4_096;

/// What one quickstart leaves for the next in the data directory.
#[derive(Debug, Serialize, Deserialize)]
struct Left {
    pid: u32,
    address: SocketAddr,
    /// Its driver's name.
    #[serde(default = "local")]
    driver: String,
}

/// What an earlier Bay left that knew of no other.
fn local() -> String {
    Driver::Local.name().to_owned()
}

/// A running Bay.
pub(super) struct Server {
    data_dir: PathBuf,
    client: Client,
    pid: u32,
    /// True when this quickstart started it.
    ours: bool,
}

impl Server {
    /// Uses the Bay that an earlier quickstart left on this data directory, else starts one.
    pub(super) async fn find_or_start(
        data_dir: PathBuf,
        driver: Driver,
        screen: &mut impl Write,
    ) -> Result<Self, QuickstartError> {
        let say = |screen: &mut dyn Write, text: String| {
            writeln!(screen, "{text}").map_err(io("cannot write to the terminal"))
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&data_dir);
        made.map_err(io(format!("cannot make {}", data_dir.display())))?;
        if let Some(found) = Self::find(&data_dir, driver).await {
            say(screen, format!("Bay already runs on http://{} (pid {}).", found.client.address, found.pid))?;
            return Ok(found);
        }
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let listen = if TcpListener::bind(wanted).is_ok() {
            wanted
        } else {
            say(screen, format!("Port {PORT} is taken, so Bay listens on another."))?;
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
        };
        if driver == Driver::Local {
            let words = "Making sure of a Python with ipykernel (the first time it is downloaded).";
            say(screen, words.to_owned())?;
            ensure_python(data_dir.clone()).await?;
        }
        say(screen, format!("Starting Bay with its data in {}.", data_dir.display()))?;
        let server = Self::start(data_dir, driver, listen).await?;
        say(
            screen,
            format!(
                "Bay runs on http://{} (pid {}). To try the lines below yourself:\n\n  export BAY_API_KEY=\"$(cat {})\"",
                server.client.address,
                server.pid,
                quoted(&server.key_file().to_string_lossy())
            ),
        )?;
        Ok(server)
    }

    async fn find(data_dir: &Path, driver: Driver) -> Option<Self> {
        let left: Left = serde_json::from_slice(&std::fs::read(left_file(data_dir)).ok()?).ok()?;
        // The key is sent to nobody but that very Bay: a port outlives its listener.
        if left.driver != driver.name() || !serves(left.pid, data_dir) {
            return None;
        }
        let client = Client::new(left.address, read_key(data_dir).ok()?);
        let answer = client.send(&Call::new("GET", "/v1/profiles")).await.ok()?;
        let found = Self { data_dir: data_dir.to_owned(), client, pid: left.pid, ours: false };
        (answer.status == 200).then_some(found)
    }

    async fn start(data_dir: PathBuf, driver: Driver, listen: SocketAddr) -> Result<Self, QuickstartError> {
        let program = std::env::current_exe().map_err(io("cannot tell where this program is"))?;
        let path = log_file(&data_dir);
        let log = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(io(format!("cannot open {}", path.display())))?;
        let begin = log.metadata().map_err(io("cannot look at the log"))?.len();
        let again = log.try_clone().map_err(io("cannot use the log twice"))?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg("--data-dir")
            .arg(&data_dir)
            .arg("--key-file")
            .arg(key_file(&data_dir))
            .arg("--listen")
            .arg(listen.to_string())
            .env("BAY_DRIVER__KIND", driver.name())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(again)
            .stderr(log)
            // Ctrl-C on this terminal is not meant for it.
            .process_group(0)
            .spawn()
            .map_err(io("cannot start Bay"))?;
        let pid = child.id();
        let listening = wait_until_it_listens(&mut child, &path, begin).await;
        match listening.and_then(|address| Ok((address, read_key(&data_dir)?))) {
            Ok((address, key)) => {
                let left =
                    serde_json::json!(Left { pid, address, driver: driver.name().to_owned() }).to_string();
                std::fs::write(left_file(&data_dir), left).map_err(io("cannot note where Bay listens"))?;
                Ok(Self { data_dir, client: Client::new(address, key), pid, ours: true })
            }
            Err(reason) => {
                // It is of no use to anyone, and its own end is not what went wrong.
                let _unheard = child.kill().and_then(|()| child.wait());
                let log = path.display().to_string();
                Err(QuickstartError::Start { reason, log, tail: tail(&path, begin) })
            }
        }
    }

    /// How to speak to it.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(super) fn log(&self) -> PathBuf {
        log_file(&self.data_dir)
    }

    pub(super) fn key_file(&self) -> PathBuf {
        key_file(&self.data_dir)
    }

    /// Ends it where `wanted`, unless it ran before. True when it ended.
    pub(super) async fn stop_if_ours(&self, wanted: bool) -> Result<bool, QuickstartError> {
        if !wanted || !self.ours {
            return Ok(false);
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
        // It is our child and not yet waited for, so the number cannot have become somebody else's.
        kill_process(pid, Signal::TERM).map_err(|error| io("cannot stop Bay")(error.into()))?;
        let deadline = Instant::now() + STOP;
        while !ended(pid)? {
            if Instant::now() >= deadline {
                kill_process(pid, Signal::KILL).map_err(|error| io("cannot kill Bay")(error.into()))?;
                return Err(QuickstartError::Stop(self.pid));
            }
            tokio::time::sleep(INTERVAL).await;
        }
        // The next quickstart need not ask a port that may by then be another program's.
        let _unheard = std::fs::remove_file(left_file(&self.data_dir));
        Ok(true)
    }
}

async fn ensure_python(data_dir: PathBuf) -> Result<(), QuickstartError> {
    let made = tokio::task::spawn_blocking(move || crate::driver::local::ensure_python(&data_dir)).await;
    match made {
        Ok(Ok(_place)) => Ok(()),
        Ok(Err(error)) => Err(QuickstartError::Python(error.to_string())),
        Err(error) => Err(QuickstartError::Python(error.to_string())),
    }
}

fn ended(pid: Pid) -> Result<bool, QuickstartError> {
    use rustix::process::{WaitOptions, waitpid};
    let status = waitpid(Some(pid), WaitOptions::NOHANG);
    Ok(status.map_err(|error| io("cannot wait for Bay")(error.into()))?.is_some())
}

/// True while this process is a Bay that was started as below.
fn serves(pid: u32, data_dir: &Path) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
    words.get(1) == Some(&b"serve".as_slice()) && words.contains(&data_dir.as_os_str().as_bytes())
}

/// Bay writes it at its first start only.
fn read_key(data_dir: &Path) -> Result<String, String> {
    let file = key_file(data_dir);
    let key = std::fs::read_to_string(&file).map_err(|_missing| {
        format!(
            "its key was made at an earlier start and is not in {}; put one there that `bay key create` makes",
            file.display()
        )
    })?;
    Ok(key.trim().to_owned())
}

/// The address it says it listens on, or why there will be none.
async fn wait_until_it_listens(
    child: &mut std::process::Child,
    log: &Path,
    begin: u64,
) -> Result<SocketAddr, String> {
    let deadline = Instant::now() + START;
    loop {
        // In this order: a Bay that said where it listens and ended at once has still ended.
        let said = read_from(log, begin);
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Err(format!("it ended with {status}"));
        }
        if let Some(address) = said.as_deref().and_then(address_in) {
            return Ok(address);
        }
        if Instant::now() >= deadline {
            return Err(format!("it said nothing of listening within {} s", START.as_secs()));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The address in a log, once its line is whole.
pub(super) fn address_in(log: &str) -> Option<SocketAddr> {
    let rest = &log[log.find(LISTENING)? + LISTENING.len()..];
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)))?;
    rest[..end].parse().ok()
}

fn tail(log: &Path, begin: u64) -> String {
    let end = std::fs::metadata(log).map_or(0, |data| data.len());
    read_from(log, begin.max(end.saturating_sub(TAIL))).unwrap_or_default()
}

fn read_from(log: &Path, begin: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(begin)).ok()?;
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn log_file(data_dir: &Path) -> PathBuf {
    data_dir.join("bay.log")
}

fn key_file(data_dir: &Path) -> PathBuf {
    data_dir.join("quickstart.key")
}

fn left_file(data_dir: &Path) -> PathBuf {
    data_dir.join("quickstart.json")
}
