//! The network rules, on a link of the test's own: a namespace at the other end of a virtual cable plays the host
//! and the world. Nothing leaves the machine.
//!
//! Needs root, and `ip`, `nsenter` and `unshare` (iproute2 and util-linux); as another user there is nothing to test,
//! because there init has no say over a network.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use std::process::{Child, Command, Stdio};

use bay_ship_api::init::{Isolation, NetworkSetup};
use support::{Setup, is_root, wait_for};

/// What answers at the other end: an echo on TCP and UDP, port 7777, for both families.
const FAR_END: &str = r#"
import socket, threading
def tcp(family):
    s = socket.socket(family); s.setsockopt(1, 2, 1)
    if family == socket.AF_INET6: s.setsockopt(41, 26, 1)
    s.bind(("", 7777)); s.listen(9)
    while True:
        c, _ = s.accept(); c.send(b"tcp"); c.close()
def udp(family):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6: s.setsockopt(41, 26, 1)
    s.bind(("", 7777))
    while True:
        _, peer = s.recvfrom(99); s.sendto(b"udp", peer)
jobs = [threading.Thread(target=job, args=(family,)) for job in (tcp, udp) for family in (socket.AF_INET, socket.AF_INET6)]
[job.start() for job in jobs]
"#;

/// Tries each way to each address and prints which ones answered.
const PROBE: &str = r#"
import socket
index = socket.if_nametoindex("cable")
def attempt(family, kind, how, host):
    try:
        s = socket.socket(family, kind); s.settimeout(0.7)
        if how == "device": s.setsockopt(1, 25, b"cable\0")
        if how == "ifindex": s.setsockopt(1, 62, index)
        if how == "unicast": s.setsockopt(0, 50, socket.htonl(index).to_bytes(4, "little"))
        address = (host, 7777) if family == socket.AF_INET else (host, 7777, 0, index if host.startswith("fe80") else 0)
        if kind == socket.SOCK_STREAM:
            s.connect(address)
        elif how == "pktinfo" and family == socket.AF_INET:
            s.sendmsg([b"x"], [(0, 8, index.to_bytes(4, "little") + bytes(8))], 0, address)
        elif how == "pktinfo":
            s.sendmsg([b"x"], [(41, 50, bytes(16) + index.to_bytes(4, "little"))], 0, address)
        else:
            s.sendto(b"x", address)
        return s.recv(9) in (b"tcp", b"udp")
    except OSError as e:
        return False
for name, host in HOSTS:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reached = [how for how in ("plain", "device", "ifindex", "unicast") if attempt(family, socket.SOCK_STREAM, how, host)]
    reached += ["udp " + how for how in ("plain", "device", "pktinfo", "unicast") if attempt(family, socket.SOCK_DGRAM, how, host)]
    print(name, *reached, sep=",")
"#;

fn run(words: &[&str]) {
    let done = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A namespace of the test's own, gone with its process.
struct FarEnd(Child);

impl FarEnd {
    fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec python3 -c \"$0\"", FAR_END])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let far = Self(child);
        wait_for(|| (far.namespace() != own_namespace()).then_some(()), "the far namespace");
        far
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn namespace(&self) -> Option<String> {
        let link = std::fs::read_link(format!("/proc/{}/ns/net", self.0.id())).ok()?;
        Some(link.to_string_lossy().into_owned())
    }

    fn set_up(&self) {
        let inside = ["nsenter", "--net", "--target", &self.pid()].map(str::to_owned);
        for words in [
            "ip addr add 10.77.0.1/24 dev far",
            "ip -6 addr add fd77::1/64 dev far nodad",
            "ip -6 addr add fe80::1/64 dev far nodad",
            "ip link set far up",
            "ip addr add 192.168.99.1/32 dev lo",
            "ip addr add 203.0.113.5/32 dev lo",
            "ip -6 addr add 2001:db8::5/128 dev lo",
        ] {
            let all: Vec<&str> = inside.iter().map(String::as_str).chain(words.split(' ')).collect();
            run(&all);
        }
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn own_namespace() -> Option<String> {
    Some(std::fs::read_link("/proc/self/ns/net").ok()?.to_string_lossy().into_owned())
}

/// Lays the cable between init's namespace and the far end, before init goes on.
fn lay_cable(init: u32, far: &FarEnd) {
    let init = init.to_string();
    // Made at the far end, with one end put inside: nothing of it is ever in the host's own namespace.
    run(&[
        "nsenter",
        "--net",
        "--target",
        &far.pid(),
        "ip",
        "link",
        "add",
        "far",
        "type",
        "veth",
        "peer",
        "name",
        "cable",
        "netns",
        &init,
    ]);
    far.set_up();
    for words in [
        "ip addr add 10.77.0.2/24 dev cable",
        "ip -6 addr add fd77::2/64 dev cable nodad",
        "ip link set cable up",
        "ip route add default via 10.77.0.1",
        "ip -6 route add default via fd77::1",
    ] {
        let all: Vec<&str> =
            ["nsenter", "--net", "--target", &init].into_iter().chain(words.split(' ')).collect();
        run(&all);
    }
}

#[test]
fn denied_addresses_are_out_of_reach_however_a_socket_is_tied() {
    if !is_root() {
        eprintln!("skipped: network rules are init's to set only where Bay runs as root");
        return;
    }
    let far = std::sync::Arc::new(FarEnd::new());
    let mut setup = Setup::new(Isolation::TwoUid);
    setup.config.network = NetworkSetup::PolicyRoutes {
        deny: ["10.0.0.0/8", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"]
            .map(String::from)
            .into(),
        allow: vec!["192.168.99.1".into()],
    };
    let cable_to = std::sync::Arc::clone(&far);
    setup.before_config = Some(Box::new(move |init| lay_cable(init, &cable_to)));
    let container = setup.start();
    let mut client = container.client();
    let hosts = "HOSTS = [('world', '203.0.113.5'), ('resolver', '192.168.99.1'), ('gateway', '10.77.0.1'), \
                 ('other', '10.99.0.1'), ('world6', '2001:db8::5'), ('gateway6', 'fd77::1'), ('link', 'fe80::1'), \
                 ('self', '10.77.0.2')]";
    let probe = |client: &mut support::Client| client.python_ok(&format!("{hosts}\n{PROBE}"));
    // The far end needs a moment, and what may be reached shows that it is there.
    wait_for(|| probe(&mut client).contains("world,plain").then_some(()), "the far end");
    let said = probe(&mut client);
    let lines: Vec<&str> = said.lines().collect();
    let all = "plain,udp plain,udp pktinfo";
    assert_eq!(lines[0], format!("world,{all}"));
    assert_eq!(lines[1], format!("resolver,{all}"));
    assert_eq!(lines[2], "gateway");
    assert_eq!(lines[3], "other");
    assert!(lines[4].starts_with("world6,plain"), "{}", lines[4]);
    assert_eq!(lines[5], "gateway6");
    assert_eq!(lines[6], "link");
    let began = std::time::Instant::now();
    let refused = client.python_ok(
        "import socket\ntry: socket.create_connection(('10.77.0.1', 7777), timeout=20)\nexcept OSError as e: print(e.errno)",
    );
    assert!(matches!(refused.as_str(), "101" | "113") && began.elapsed().as_secs() < 10, "{refused}");
}

#[test]
fn a_policy_that_cannot_be_given_stops_the_start() {
    let isolation = Isolation::NestedPid;
    let mut setup = Setup::new(isolation);
    setup.config.network = NetworkSetup::PolicyRoutes { deny: vec!["10.0.0.0/8".into()], allow: vec![] };
    let container = setup.start();
    wait_for(|| container.ended().then_some(()), "init to refuse");
    assert!(container.setup.log().contains("NET_ADMIN"), "{}", container.setup.log());
}
