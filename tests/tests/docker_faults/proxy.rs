//! Between Bay and an engine: passes everything on, but holds back what makes a container until it is told otherwise.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tempfile::TempDir;

/// Longest that anything is held: a test that forgot ends.
const HELD: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
    over: AtomicBool,
}

impl Gate {
    fn pass(&self) {
        let shut = self.shut.lock().expect("the gate");
        if !*shut {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _ = self.opened.wait_timeout_while(shut, HELD, |shut| *shut).expect("the gate");
    }
}

/// A socket of its own in front of the engine's.
pub(crate) struct Proxy {
    dir: TempDir,
    gate: Arc<Gate>,
}

impl Proxy {
    /// In front of the engine with this `unix://` address.
    pub(crate) fn before(host: &str) -> Self {
        let engine = PathBuf::from(host.strip_prefix("unix://").expect("a unix:// address"));
        let dir = tempfile::Builder::new().prefix("bay-proxy-").tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(dir.path().join("proxy.sock")).expect("listen");
        let gate = Arc::<Gate>::default();
        let own = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), false) = (client, own.over.load(Ordering::SeqCst)) else { return };
                let Ok(server) = UnixStream::connect(&engine) else { continue };
                let gate = Arc::clone(&own);
                let (back, to) = (server.try_clone(), client.try_clone());
                let (Ok(back), Ok(to)) = (back, to) else { continue };
                std::thread::spawn(move || copy(client, server, Some(&gate)));
                std::thread::spawn(move || copy(back, to, None));
            }
        });
        Self { dir, gate }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("proxy.sock").display())
    }

    /// From now on no container is made.
    pub(crate) fn hold(&self) {
        *self.gate.shut.lock().expect("the gate") = true;
    }

    /// What was held goes on, although who asked may have left.
    pub(crate) fn release(&self) {
        *self.gate.shut.lock().expect("the gate") = false;
        self.gate.opened.notify_all();
    }

    /// How many requests have been held.
    pub(crate) fn held(&self) -> usize {
        self.gate.waiting.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.release();
        self.gate.over.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(self.dir.path().join("proxy.sock"));
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream, gate: Option<&Gate>) {
    let mut chunk = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        // A request's head begins a write of the client's.
        let head = &chunk[..n.min(200)];
        let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default());
        if let Some(gate) = gate.filter(|_| line.starts_with("POST ") && line.contains("/containers/create"))
        {
            gate.pass();
        }
        if to.write_all(&chunk[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
