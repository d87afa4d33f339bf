//! Addresses of this machine that a test may aim at: nothing else is ever a target.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

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

/// An interface of the test's own that gives this machine an address; gone when it goes out of scope.
#[derive(Debug)]
pub struct OwnAddress {
    interface: String,
    /// The address.
    pub addr: Ipv4Addr,
}

impl OwnAddress {
    /// Gives this machine `addr`. Needs root. `None` where the machine cannot make an interface.
    pub fn give(addr: Ipv4Addr) -> Option<Self> {
        let id = std::process::id() % 100_000;
        let [_, _, c, d] = addr.octets();
        let interface = format!("bt{id:x}{c:02x}{d:02x}");
        // A veth pair rather than a dummy: every kernel that can give a sandbox egress has veth.
        if !ip(&["link", "add", &interface, "type", "veth", "peer", "name", &format!("{interface}p")]) {
            return None;
        }
        let own = Self { interface, addr };
        let up = ip(&["addr", "add", &format!("{addr}/32"), "dev", &own.interface])
            && ip(&["link", "set", &own.interface, "up"])
            && own.is_local();
        up.then_some(own)
    }

    /// Whether the kernel delivers packets for it on this machine.
    fn is_local(&self) -> bool {
        let route = Command::new("ip").args(["route", "get", &self.addr.to_string()]).output();
        route.is_ok_and(|r| String::from_utf8_lossy(&r.stdout).starts_with("local "))
    }
}

impl Drop for OwnAddress {
    fn drop(&mut self) {
        let _ = ip(&["link", "delete", &self.interface]);
    }
}

/// The private addresses this machine has anyway, its loopback apart.
pub fn private_addresses() -> Vec<Ipv4Addr> {
    let shown = Command::new("ip").args(["-4", "-o", "addr", "show"]).output();
    let shown = shown.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    shown
        .lines()
        .filter_map(|l| {
            l.split_whitespace().skip_while(|w| *w != "inet").nth(1)?.split('/').next()?.parse().ok()
        })
        .filter(|a: &Ipv4Addr| a.is_private())
        .collect()
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).output().is_ok_and(|o| o.status.success())
}
