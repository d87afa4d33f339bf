//! Addresses of this machine that a test may aim at: nothing else is ever a target.
//!
//! As root a test moves into a network namespace of its own first ([`moved`]), where any address can be given to
//! this machine or to a stand-in for the internet ([`Internet`]), and no packet can leave it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

/// Set in a test that was moved.
const MOVED: &str = "BAY_TEST_MOVED";

/// The address of the machine under test on its way to the stand-in internet.
const UPLINK: &str = "203.0.113.1";

/// Runs the test `name` again in a network namespace of its own. True when that has been done (and it passed), so
/// that the caller returns; false when this is that run.
pub fn moved(name: &str) -> bool {
    if std::env::var_os(MOVED).is_some() {
        ip(&["link", "set", "lo", "up"]);
        return false;
    }
    let own = std::env::current_exe().expect("the test's own path");
    let again = Command::new("unshare")
        .args(["--net", "--"])
        .arg(own)
        .args(["--exact", name, "--nocapture"])
        .env(MOVED, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .expect("run the test in a network namespace of its own");
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success(), "{name} in a network namespace of its own: {}\n{said}", again.status);
    assert!(said.contains("1 passed"), "no test is called {name}:\n{said}");
    true
}

/// Gives an address to this machine, which must be in a namespace of its own.
pub fn give(addr: Ipv4Addr) {
    assert!(std::env::var_os(MOVED).is_some(), "only in a namespace of its own");
    ip(&["addr", "add", &format!("{addr}/32"), "dev", "lo"]);
}

/// What lies beyond the default route, in one more namespace: a server that answers on every address it is given.
#[derive(Debug)]
pub struct Internet {
    process: Child,
    /// The port it serves.
    pub port: u16,
}

/// Takes addresses on its first line, answers `ready`, then serves until its stdin ends.
const SERVER: &str = r#"
import socket, subprocess, sys, threading
run = lambda *a: subprocess.run(a, check=True)
print('here', flush=True)
addresses = sys.stdin.readline().split()
run('ip', 'link', 'set', 'lo', 'up')
run('ip', 'addr', 'add', addresses[0] + '/24', 'dev', 'far')
run('ip', 'link', 'set', 'far', 'up')
for address in addresses[1:]: run('ip', 'addr', 'add', address + '/32', 'dev', 'lo')
server = socket.create_server(('0.0.0.0', 0))
print(server.getsockname()[1], flush=True)
def serve():
    while True:
        peer, _ = server.accept()
        peer.sendall(b'the internet')
        peer.close()
threading.Thread(target=serve, daemon=True).start()
sys.stdin.read()
"#;

impl Internet {
    /// Makes it reachable from this namespace by a default route. The first address must be in 203.0.113.0/24; the
    /// others lie behind it.
    pub fn connect(addresses: &[Ipv4Addr]) -> Self {
        assert!(std::env::var_os(MOVED).is_some(), "only in a namespace of its own");
        let mut process = Command::new("unshare")
            .args(["--net", "--", "/usr/bin/python3", "-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the stand-in internet");
        let mut out = BufReader::new(process.stdout.take().expect("its stdout"));
        let mut line = || {
            let mut line = String::new();
            out.read_line(&mut line).expect("a line of the stand-in internet");
            line.trim().to_owned()
        };
        assert_eq!(line(), "here");
        let pid = process.id().to_string();
        ip(&["link", "add", "up0", "type", "veth", "peer", "name", "far", "netns", &pid]);
        ip(&["addr", "add", &format!("{UPLINK}/24"), "dev", "up0"]);
        ip(&["link", "set", "up0", "up"]);
        let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let stdin = process.stdin.as_mut().expect("its stdin");
        writeln!(stdin, "{}", all.join(" ")).expect("tell it its addresses");
        let port = line().parse().expect("its port");
        ip(&["route", "add", "default", "via", &all[0]]);
        Self { process, port }
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A listener that says whether anybody reached it.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
}

impl Listener {
    /// Listens on a free port of an address of this machine.
    pub fn bind(addr: IpAddr) -> Self {
        let inner = TcpListener::bind((addr, 0)).unwrap_or_else(|e| panic!("listen on {addr}: {e}"));
        inner.set_nonblocking(true).expect("non-blocking");
        Self { inner }
    }

    /// Where.
    pub fn addr(&self) -> SocketAddr {
        self.inner.local_addr().expect("a bound address")
    }

    /// Whether a connection came in since the last time.
    pub fn reached(&self) -> bool {
        self.inner.accept().is_ok()
    }
}

/// The private addresses this machine has anyway, its loopback apart.
pub fn private_addresses() -> Vec<Ipv4Addr> {
    let shown = said(&["-4", "-o", "addr", "show"]);
    shown
        .lines()
        .filter_map(|l| {
            l.split_whitespace().skip_while(|w| *w != "inet").nth(1)?.split('/').next()?.parse().ok()
        })
        .filter(|a: &Ipv4Addr| a.is_private())
        .collect()
}

/// Names of this machine's interfaces.
pub fn interfaces() -> Vec<String> {
    let shown = said(&["-o", "link", "show"]);
    let name = |l: &str| Some(l.split(": ").nth(1)?.split('@').next()?.to_owned());
    shown.lines().filter_map(name).collect()
}

fn said(args: &[&str]) -> String {
    let out = Command::new("ip").args(args).output();
    out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

#[track_caller]
fn ip(args: &[&str]) {
    let out = Command::new("ip").args(args).output().expect("run ip");
    assert!(out.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}
