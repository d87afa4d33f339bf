//! What user code in a container reaches through Docker's own network, and who reaches it. Every address that is
//! tried is one of this machine's own, or one that no policy lets a packet out to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use bay_tests::config::Profile;
use bay_tests::net::Listener;
use bay_tests::{Bay, Options, Sandbox, driver, soon};
use serde_json::{Value, json};

/// Ship's own port, in the modes in which it has one: what the harness writes into profiles.
const SHIP_PORT: u16 = 8123;
/// Where a server of user code listens.
const SERVER_PORT: u16 = 8200;
/// Link-local, as a cloud's metadata service is, but nobody's: the real one must not be shadowed.
const LINK_LOCAL: [u8; 3] = [169, 254, 213];
/// Carrier-grade, where some clouds keep theirs.
const CARRIER: [u8; 3] = [100, 100, 213];
/// For documents; stands in for the internet once it is this machine's.
const PUBLIC: [u8; 3] = [203, 0, 113];
/// Where clouds really keep it. Nobody answers here; what counts is that nothing is sent.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// An address that this machine has for a while.
struct Given(Ipv4Addr);

impl Given {
    /// One of these networks', the test's own, so that tests do not take each other's away.
    fn new([a, b, c]: [u8; 3]) -> Self {
        let last = 20 + u8::try_from(std::process::id() % 200).expect("below 200");
        let address = Ipv4Addr::new(a, b, c, last);
        // Left by a run that was killed.
        let _ = Self::ip("del", address);
        let added = Self::ip("add", address);
        assert!(added.status.success(), "{address}: {}", String::from_utf8_lossy(&added.stderr));
        Self(address)
    }

    fn ip(what: &str, address: Ipv4Addr) -> std::process::Output {
        let address = format!("{address}/32");
        Command::new("ip").args(["addr", what, &address, "dev", "lo"]).output().expect("run ip")
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let _ = Self::ip("del", self.0);
    }
}

fn profile(network: &str) -> Profile {
    let mut profile = Profile::python().named(network);
    profile.network = network.into();
    profile
}

/// A Bay that listens on every address of the machine, so that a sandbox could reach it if it were let.
fn exposed() -> Bay {
    let options =
        Options::default().config(json!({ "server": { "listen": "0.0.0.0:0", "hosts": ["0.0.0.0"] } }));
    Bay::start(options.profile(profile("egress")).profile(profile("internal")).profile(profile("none")))
}

fn start(bay: &Bay, profile: &str) -> Sandbox {
    bay.api().sandbox(json!({ "profile": profile, "start": "wait" }))
}

/// Its container, as the engine lists it.
fn container(bay: &Bay, sandbox: &Sandbox) -> Value {
    let locker = sandbox.locker.trim_start_matches("lkr_");
    let all = bay.containers().expect("on Docker").all();
    all.into_iter().find(|c| c["Mounts"].to_string().contains(locker)).expect("its container")
}

fn name(bay: &Bay, sandbox: &Sandbox) -> String {
    container(bay, sandbox)["Names"][0].as_str().expect("a name").trim_start_matches('/').to_owned()
}

/// Its address, and the one of the machine on the same network; none where it has no network.
fn addresses(bay: &Bay, sandbox: &Sandbox) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let containers = bay.containers().expect("on Docker");
    let network = container(bay, sandbox);
    let network = network["NetworkSettings"]["Networks"].as_object()?.values().next()?;
    let address = network["IPAddress"].as_str()?.parse().ok()?;
    // An internal network names no gateway, but its bridge has an address all the same.
    let id = network["NetworkID"].as_str()?;
    let shown = containers.engine.get(&format!("/networks/{id}"));
    let gateway = shown["IPAM"]["Config"][0]["Gateway"].as_str()?.parse().ok()?;
    Some((address, gateway))
}

/// All IPv4 addresses of this machine but the loopback's, and but those of other containers' networks: such a network
/// may go meanwhile, and what is sent to its address then leaves this machine.
fn machine() -> Vec<Ipv4Addr> {
    let shown = Command::new("ip").args(["-4", "-o", "addr", "show"]).output().expect("run ip");
    let address = |line: &str| -> Option<Ipv4Addr> {
        line.split_whitespace().skip_while(|w| *w != "inet").nth(1)?.split('/').next()?.parse().ok()
    };
    let passing = |line: &&str| {
        let name = line.split_whitespace().nth(1).unwrap_or_default();
        name.starts_with("br-") || name.starts_with("veth")
    };
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    text.lines().filter(|line| !passing(line)).filter_map(address).filter(|a| !a.is_loopback()).collect()
}

/// Tries each target by TCP, by TCP as a mapped IPv6 address, and by single messages tied to each interface
/// (`IP_PKTINFO`), which ordinary routes do not stop. Prints a list of those that worked.
const TRY: &str = r#"
import json, socket, struct
worked = []
def note(how, target, call):
    try: worked.append([how, target, str(call())])
    except OSError: pass
def tcp(family, host, port):
    with socket.socket(family) as s:
        s.settimeout(1)
        s.connect((host, port))
        return 'connected'
def tied(host, port, index):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.5)
        s.sendmsg([b'tied'], [(0, 8, struct.pack('i8x', index))], 0, (host, port))
        return s.recv(16)
for host, port in TARGETS:
    target = f'{host}:{port}'
    note('tcp', target, lambda: tcp(socket.AF_INET, host, port))
    note('mapped', target, lambda: tcp(socket.AF_INET6, '::ffff:' + host, port))
    for index, name in socket.if_nameindex():
        if name != 'lo': note('tied to ' + name, target, lambda: tied(host, port, index))
print(json.dumps(worked))
"#;

fn reached(sandbox: &Sandbox, targets: &[SocketAddr]) -> Vec<Value> {
    let list: Vec<(String, u16)> = targets.iter().map(|t| (t.ip().to_string(), t.port())).collect();
    let said = sandbox.python_ok(&format!("TARGETS = {}\n{TRY}", json!(list)));
    serde_json::from_str(&said).expect("a list")
}

/// Sees single messages that come in on the same port as a listener.
fn messages(listener: &Listener) -> std::net::UdpSocket {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, listener.addr().port()));
    let socket = socket.expect("a socket for messages");
    socket.set_nonblocking(true).expect("non-blocking");
    socket
}

/// None of `targets` is reached, and nothing came in here.
#[track_caller]
fn nothing_gets_through(sandbox: &Sandbox, targets: &[SocketAddr], everywhere: &Listener) {
    let messages = messages(everywhere);
    assert_eq!(reached(sandbox, targets), Vec::<Value>::new(), "user code reaches these");
    assert!(!everywhere.reached(), "a connection came through");
    let mut buffer = [0; 16];
    assert!(messages.recv_from(&mut buffer).is_err(), "a message came through");
}

/// A server of user code, to be reached or not.
fn serve(sandbox: &Sandbox) {
    sandbox.python_ok(&format!(
        "import socket, threading\nserver = socket.create_server(('0.0.0.0', {SERVER_PORT}))\n\
         def serve():\n  while True:\n    server.accept()[0].close()\n\
         threading.Thread(target=serve, daemon=True).start()"
    ));
}

fn at(addresses: impl IntoIterator<Item = Ipv4Addr>, port: u16) -> Vec<SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address.into(), port)).collect()
}

#[test]
fn egress_reaches_no_machine_of_ours_and_no_other_tenant() {
    let _given = [Given::new(LINK_LOCAL), Given::new(CARRIER)];
    let bay = exposed();
    let (one, other) = (start(&bay, "egress"), start(&bay, "egress"));
    serve(&other);
    let everywhere = Listener::bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let (_, gateway) = addresses(&bay, &one).expect("a network");
    let (neighbour, its_gateway) = addresses(&bay, &other).expect("a network");
    assert_ne!(gateway, its_gateway, "each session has a network of its own");

    // From here all of it answers, so what fails below fails for its policy.
    let ours = [&machine()[..], &[gateway, its_gateway]].concat();
    for target in at(ours.clone(), everywhere.addr().port()) {
        std::net::TcpStream::connect_timeout(&target, Duration::from_secs(3))
            .unwrap_or_else(|e| panic!("{target}: {e}"));
    }
    while everywhere.reached() {}

    let mut targets = at(ours.clone(), everywhere.addr().port());
    targets.extend(at(ours, bay.addr().port()));
    targets.extend(at([neighbour], SERVER_PORT));
    targets.extend(at([neighbour], SHIP_PORT));
    targets.extend(at([METADATA], 80));
    nothing_gets_through(&one, &targets, &everywhere);

    // It has a network, and that leads out. The address was not this machine's when the container started.
    let public = Given::new(PUBLIC);
    let out = reached(&one, &at([public.0], everywhere.addr().port()));
    assert!(out.iter().any(|how| how[0] == "tcp"), "egress leads nowhere: {out:?}");
    assert!(soon(Duration::from_secs(5), || everywhere.reached()));
    no_ipv6(&one);
    // Docker's own resolver is reached: it knows the container's name, and no file inside does.
    let (name, own) = (name(&bay, &one), addresses(&bay, &one).expect("a network").0);
    let resolved = one.python_ok(&format!("import socket\nprint(socket.gethostbyname('{name}'))"));
    assert_eq!(resolved, own.to_string());
}

#[test]
fn internal_reaches_its_own_network_and_not_the_machine() {
    let bay = exposed();
    let (one, other) = (start(&bay, "internal"), start(&bay, "internal"));
    serve(&other);
    let everywhere = Listener::bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let (own, gateway) = addresses(&bay, &one).expect("a network");
    let (neighbour, its_gateway) = addresses(&bay, &other).expect("a network");
    let ours = [&machine()[..], &[gateway, its_gateway]].concat();
    let mut targets = at(ours.clone(), everywhere.addr().port());
    targets.extend(at(ours, bay.addr().port()));
    targets.extend(at([neighbour], SERVER_PORT));
    targets.extend(at([neighbour], SHIP_PORT));
    targets.extend(at([METADATA], 80));
    nothing_gets_through(&one, &targets, &everywhere);
    // Its own address is on that network, and is reached.
    serve(&one);
    let own = reached(&one, &at([own], SERVER_PORT));
    assert!(own.iter().any(|how| how[0] == "tcp"), "{own:?}");
    no_ipv6(&one);
}

#[test]
fn none_reaches_nothing_and_resolves_nothing_however_bay_reaches_it() {
    let bay = exposed();
    let sandbox = start(&bay, "none");
    let everywhere = Listener::bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let network = addresses(&bay, &sandbox);
    assert_eq!(network.is_some(), driver::connect() != "socket" && driver::connect() != "auto");
    let mut ours = machine();
    ours.extend(network.map(|(_, gateway)| gateway));
    let mut targets = at(ours.clone(), everywhere.addr().port());
    targets.extend(at(ours, bay.addr().port()));
    targets.extend(at([METADATA], 80));
    nothing_gets_through(&sandbox, &targets, &everywhere);
    no_ipv6(&sandbox);
    // A resolver with nobody to ask may take its time to say so.
    let names = "import subprocess\nfound = []\nfor name in ('example.com', 'deb.debian.org'):\n  \
                 try: found.append(subprocess.run(['getent', 'ahosts', name], capture_output=True, timeout=8).stdout)\n  \
                 except subprocess.TimeoutExpired: pass\nprint(b''.join(found))";
    assert_eq!(sandbox.python_ok(names), "b''", "names are resolved without a network");
    sandbox.unharmed();
}

/// No address but the loopback's, and no way out.
#[track_caller]
fn no_ipv6(sandbox: &Sandbox) {
    let code = "import os, socket\n\
                text = open('/proc/net/if_inet6').read() if os.path.exists('/proc/net/if_inet6') else ''\n\
                said = [line for line in text.splitlines() if not line.endswith(' lo')]\n\
                for host in ('2001:db8::1', 'fd00::1', 'fe80::1%eth0', 'ff02::1%eth0'):\n  \
                s = None\n  \
                try:\n    \
                info = socket.getaddrinfo(host, 80, socket.AF_INET6, socket.SOCK_STREAM)[0]\n    \
                s = socket.socket(socket.AF_INET6); s.settimeout(1); s.connect(info[4]); said.append(host)\n  \
                except OSError: pass\n\
                print(said)";
    assert_eq!(sandbox.python_ok(code), "[]", "there is IPv6");
}

/// Says all sorts of things to Ship's port, and prints what it answers. The last one greets in due form and proves
/// nothing.
const CALL_SHIP: &str = r#"
import json, os, socket
def say(*words):
    try: s = socket.create_connection((HOST, PORT), 3)
    except OSError as e: return ['refused']
    s.settimeout(20)
    said = []
    try:
        for word in words:
            s.sendall(word)
            said.append(s.recv(4096).hex())
        return said
    except OSError as e: return said + ['broken']
request = b'GET /meta HTTP/1.1\r\nhost: ship\r\ncontent-length: 0\r\naccept: */*\r\nx-padding: more than a greeting\r\n\r\n'
nonce = os.urandom(32)
print(json.dumps([say(request), say(b'BAY1' + nonce), say(b'BAY1' + nonce, b'\0' * 32)]))
"#;

#[test]
fn user_code_gets_nothing_out_of_ships_own_socket() {
    let bay = exposed();
    let sandbox = start(&bay, "none");
    let mut hosts = vec![Ipv4Addr::LOCALHOST];
    hosts.extend(addresses(&bay, &sandbox).map(|(address, _)| address));
    let by_port = hosts.len() > 1;
    for host in hosts {
        let code = format!("HOST, PORT = '{host}', {SHIP_PORT}\n{CALL_SHIP}");
        let said: Vec<Vec<String>> = serde_json::from_str(&sandbox.python_ok(&code)).expect("its answers");
        assert_eq!(said.len(), 3, "{host}: {said:?}");
        let refused = |answer: &Vec<String>| *answer == ["refused"];
        // Whoever dials from inside is let go without a word.
        let let_go = |answer: &Vec<String>| answer.iter().all(|word| word.is_empty() || word == "broken");
        assert!(if by_port { said.iter().all(let_go) } else { said.iter().all(refused) }, "{host}: {said:?}");
    }
    // The connections are the agent's: those of user code's id would be cut off by its own network policy.
    if by_port {
        let owners = format!(
            "print(sorted({{line.split()[7] for line in open('/proc/net/tcp') \
             if line.split()[1].endswith(':{SHIP_PORT:04X}') and line.split()[3] == '01'}}))"
        );
        assert_eq!(sandbox.python_ok(&owners), "['900']");
    }
    // Nor can it listen in Ship's place.
    let take = format!(
        "import socket\ntaken = []\nfor option in (None, 2, 15):\n  s = socket.socket()\n  \
         if option: s.setsockopt(1, option, 1)\n  \
         try: s.bind(('0.0.0.0', {SHIP_PORT})); s.listen(); taken.append(option)\n  \
         except OSError: pass\n  \
         s.close()\nprint(taken)"
    );
    let taken = sandbox.python_ok(&take);
    assert_eq!(taken, if by_port { "[]" } else { "[None, 2, 15]" });
    let socket = "import os, socket\nsaid = []\n\
                  for call in (os.listdir, lambda p: os.chmod(p, 0o777), lambda p: os.stat(p + '/ship.sock'),\n  \
                  lambda p: socket.socket(1).connect(p + '/ship.sock'), lambda p: os.rename(p, '/tmp/x')):\n  \
                  try: call('/.bay-socket'); said.append('done')\n  \
                  except OSError: pass\nprint(said)";
    assert_eq!(sandbox.python_ok(socket), "[]", "the socket's directory is open to user code");
    sandbox.unharmed();
}
