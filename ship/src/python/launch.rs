//! What a kernel is started with: its private directory, its arguments, what it does once it is ready, and what
//! its interpreter says when it does not get that far.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bay_ship_api::WORKSPACE;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::kernel::{StartFailure, end_words};
use super::message::hex;
use crate::spawner::protocol::End;

/// What an interpreter says on its own stderr is kept to this, from the end.
const TAIL: usize = 4096;

/// How the interpreter is kept from reading the working directory and the user's site before it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// Python 3.11 and newer.
    SafePath,
    /// Older ones: isolated altogether.
    Isolated,
}

/// Where a kernel's sockets will appear.
pub(super) struct Sockets {
    pub(super) connection_file: String,
    pub(super) shell: PathBuf,
    pub(super) iopub: PathBuf,
}

impl Sockets {
    /// Makes the kernel's own directory, with the connection file in it.
    pub(super) fn prepare(private: &str, key: &str) -> Result<Self, StartFailure> {
        let connection_file = format!("{private}/connection.json");
        let failed = |error: rustix::io::Errno| StartFailure::Other(format!("{private}: {error}"));
        rustix::fs::mkdir(private, Mode::from_raw_mode(0o700)).map_err(failed)?;
        let base = format!("{private}/s");
        let content = json!({
            "transport": "ipc", "ip": base, "shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4,
            "hb_port": 5, "key": key, "signature_scheme": "hmac-sha256", "kernel_name": "python3",
        });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: OwnedFd =
            rustix::fs::open(&connection_file, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        std::io::Write::write_all(&mut std::fs::File::from(file), content.to_string().as_bytes())?;
        Ok(Self { connection_file, shell: format!("{base}-1").into(), iopub: format!("{base}-2").into() })
    }
}

/// What every interpreter is started with.
pub(super) fn guard_arguments(guard: Guard) -> &'static [&'static str] {
    match guard {
        Guard::SafePath => &["-P", "-s"],
        Guard::Isolated => &["-I"],
    }
}

/// The command line of an IPython kernel.
pub(super) fn arguments(python: &str, guard: Guard, connection_file: &str) -> Vec<Vec<u8>> {
    let guard = guard_arguments(guard);
    let module = ["-m", "ipykernel_launcher", "-f", connection_file];
    // No working directory on the path, no start-up file, no history database to open and write to.
    let settings = [
        "--InteractiveShellApp.ignore_cwd=True",
        "--InteractiveShellApp.exec_PYTHONSTARTUP=False",
        "--HistoryManager.enabled=False",
    ];
    let all = [python].into_iter().chain(guard.iter().copied()).chain(module).chain(settings);
    all.map(|argument| argument.as_bytes().to_vec()).collect()
}

/// What the kernel does once nothing in the locker can interfere any more: go to the workspace, let it be
/// imported from (last of all), and take over the variables that were kept back. Leaves no name behind.
pub(super) fn ready_code(withheld: &BTreeMap<&str, &str>) -> String {
    // A JSON string is a Python string literal, so nothing a user chose can end it.
    let env = Value::String(json!(withheld).to_string()).to_string();
    let program = format!(
        "import json, os, sys\n\
         os.chdir({workspace:?})\n\
         env = json.loads({env})\n\
         os.environ.update(env)\n\
         sys.path.extend(p for p in env.get('PYTHONPATH', '').split(':') if p and p not in sys.path)\n\
         sys.path.append({workspace:?})\n",
        workspace = WORKSPACE,
    );
    format!("exec({}, {{}})", Value::String(program))
}

pub(super) fn random_hex() -> Result<String, StartFailure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StartFailure::Other(error.to_string()))?;
    Ok(hex(&bytes))
}

/// The end of what the interpreter writes to its own stderr, which IPython replaces once it runs. (Its own stdout
/// has only advice for people at a terminal.)
pub(super) struct Tail {
    text: Arc<Mutex<Vec<u8>>>,
    reading: Mutex<Option<JoinHandle<()>>>,
}

impl Tail {
    pub(super) fn follow(mut pipe: pipe::Receiver) -> Self {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let into = Arc::clone(&text);
        let reading = tokio::spawn(async move {
            let mut chunk = [0u8; 1024];
            while let Ok(count) = pipe.read(&mut chunk).await {
                if count == 0 {
                    return;
                }
                let mut text = into.lock().unwrap_or_else(PoisonError::into_inner);
                text.extend_from_slice(&chunk[..count]);
                let excess = text.len().saturating_sub(TAIL);
                text.drain(..excess);
            }
        });
        Self { text, reading: Mutex::new(Some(reading)) }
    }

    /// Waits a moment for the rest, then returns it.
    pub(super) async fn take(&self) -> String {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reading) = reading {
            let _ = timeout(Duration::from_millis(100), reading).await;
        }
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// Why an interpreter ended before it was ready.
    pub(super) async fn explain(&self, end: End) -> StartFailure {
        let text = self.take().await;
        if text.contains("No module named ipykernel") {
            StartFailure::NoIpykernel
        } else if text.to_ascii_lowercase().contains("unknown option: -p") {
            StartFailure::NoSuchOption
        } else {
            StartFailure::Other(format!("the interpreter ended with {}: {text}", end_words(end)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_literal() {
        let nasty = "'\"\"\"\\\n}); import os #\u{2028}é";
        let code = ready_code(&[("PYTHONX", nasty)].into_iter().collect());
        assert_eq!(code.lines().count(), 1);
        // Undo both layers the way Python would.
        let literal = code.strip_prefix("exec(").and_then(|c| c.strip_suffix(", {})")).unwrap();
        let program: String = serde_json::from_str(literal).unwrap();
        let line = program.lines().find(|line| line.starts_with("env = ")).unwrap();
        let inner = line.strip_prefix("env = json.loads(").and_then(|l| l.strip_suffix(')')).unwrap();
        let env: Value = serde_json::from_str(&serde_json::from_str::<String>(inner).unwrap()).unwrap();
        assert_eq!(env["PYTHONX"], nasty);
    }

    #[test]
    fn nothing_in_the_arguments_comes_from_the_working_directory() {
        let all: Vec<String> = arguments("/p/python3", Guard::SafePath, "/run/c.json")
            .into_iter()
            .map(|a| String::from_utf8(a).unwrap())
            .collect();
        assert_eq!(all[..6], ["/p/python3", "-P", "-s", "-m", "ipykernel_launcher", "-f"]);
    }
}
