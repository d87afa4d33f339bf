//! What user code can reach. Every address used here is one of this machine's own.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use bay_tests::config::Profile;
use bay_tests::net::{self, Internet, Listener};
use bay_tests::{Bay, Options, Sandbox, driver, is_root, on_docker, soon};
use serde_json::{Value, json};

#[test]
fn without_a_network_there_is_only_loopback() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({}));
    let interfaces = sandbox.shell_ok("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '");
    // Where Bay reaches the runtime by its address there is one; user code must not get anywhere through it.
    let by_address = on_docker() && driver::connect() != "socket";
    assert!(interfaces == "lo" || by_address, "{interfaces}");
    let own = Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let everywhere = Listener::bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let mut targets = vec![bay.addr(), own.addr()];
    targets.extend(
        net::private_addresses().into_iter().map(|a| SocketAddr::new(a.into(), everywhere.addr().port())),
    );
    unreachable(&sandbox, &targets);
    assert!(!own.reached() && !everywhere.reached());
    // Loopback itself works: a server inside can be spoken to from inside.
    let code = "import socket\ns = socket.create_server(('127.0.0.1', 0))\nc = socket.create_connection(s.getsockname(), 2)\nprint('own loopback')";
    assert_eq!(sandbox.python_ok(code), "own loopback");
    assert_eq!(sandbox.python_ok(ODD_FAMILIES), "[]");
}

/// Families that reach past a network namespace or need privilege: packet sockets and vsock.
const ODD_FAMILIES: &str = r#"
import socket
opened = []
for family, kind in ((17, 3), (17, 2), (40, 1), (2, 3)):
    try: socket.socket(family, kind, 1 if family == 2 else 0); opened.append(family)
    except OSError: pass
# A vsock socket that leads nowhere is as good as none.
if 40 in opened:
    s = socket.socket(40, 1); s.settimeout(1)
    try: s.connect((2, 22)); opened.append('host')
    except OSError: opened.remove(40)
print(opened)
"#;

#[test]
fn egress_reaches_the_internet_and_nothing_private() {
    if !is_root() {
        return egress_as_a_normal_user();
    }
    if net::moved("network::egress_reaches_the_internet_and_nothing_private") {
        return;
    }
    let address = |text: &str| -> Ipv4Addr { text.parse().expect("an address") };
    let public = address("203.0.113.9");
    let behind =
        ["10.213.77.1", "169.254.169.254", "192.168.213.1", "172.20.0.1", "100.100.100.200"].map(address);
    let own = ["10.214.77.1", "169.254.1.1", "192.168.214.1", "198.51.100.7"].map(address);
    let internet = Internet::connect(&[&[public], &behind[..]].concat());
    own.into_iter().for_each(net::give);
    let before = net::interfaces();
    let bay = Bay::start(Options::default().profile(web()));
    let sandbox = bay.api().sandbox(json!({ "profile": "web", "start": "wait" }));
    let everywhere = Listener::bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    // Seen from the host all of it answers, so what fails below fails for its policy.
    for target in [&[public], &behind[..]].concat() {
        let mut stream = connect((target, internet.port).into());
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("an answer");
        assert_eq!(said, "the internet", "{target}");
    }
    for target in own {
        connect((target, everywhere.addr().port()).into());
    }
    while everywhere.reached() {}

    let code = format!(
        "import socket\nprint(socket.create_connection(('{public}', {}), 5).recv(64).decode())",
        internet.port
    );
    assert_eq!(sandbox.python_ok(&code), "the internet");
    let mut targets: Vec<SocketAddr> = behind.iter().map(|a| (*a, internet.port).into()).collect();
    targets.extend(own.iter().map(|a| SocketAddr::new((*a).into(), everywhere.addr().port())));
    let gateway = sandbox.python_ok(GATEWAY).parse::<Ipv4Addr>().expect("a gateway");
    targets.push((gateway, everywhere.addr().port()).into());
    targets.push((address("203.0.113.1"), everywhere.addr().port()).into());
    targets.extend(mapped(&targets));
    targets.push(bay.addr());
    unreachable(&sandbox, &targets);
    assert!(!everywhere.reached(), "a connection came through");
    policy_stands(&sandbox);
    unreachable(&sandbox, &targets);
    assert!(!everywhere.reached(), "a connection came through");

    // Two sandboxes do not reach each other.
    let other = bay.api().sandbox(json!({ "profile": "web", "start": "wait" }));
    let listen = "import socket\nserver = socket.create_server(('0.0.0.0', 8200))\nimport subprocess\nprint(subprocess.run(['ip', '-4', '-o', 'addr', 'show', 'eth0'], capture_output=True, text=True).stdout.split()[3].split('/')[0])";
    let inside = other.python_ok(listen).parse::<Ipv4Addr>().expect("the other's address");
    unreachable(&sandbox, &[(inside, 8200).into()]);

    for one in [&sandbox, &other] {
        assert_eq!(one.call("DELETE", "").send().status, 204);
    }
    let gone = || net::interfaces() == before;
    assert!(soon(Duration::from_secs(5), gone), "interfaces are left: {:?}", net::interfaces());
    let tables = std::process::Command::new("nft").args(["list", "tables"]).output().expect("run nft");
    // Bay's own table stays as long as Bay does; nothing in it is about a sandbox that is gone.
    let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
    assert!(
        tables.lines().all(|t| t.starts_with("table inet bay_")) && tables.lines().count() <= 1,
        "{tables}"
    );
}

fn web() -> Profile {
    let mut web = Profile::python().named("web");
    web.network = "egress".into();
    web
}

/// The host's network is what it is: only its own addresses are tried.
fn egress_as_a_normal_user() {
    let bay = Bay::start(Options::default().profile(web()));
    let api = bay.api();
    let sandbox = api.sandbox(json!({ "profile": "web", "start": "lazy" }));
    let first = sandbox.post("python/exec", &json!({ "code": "1" })).send();
    if first.status != 200 {
        // Where the policy cannot be given nothing runs, and `none` still works.
        let error = first.expect(503);
        assert_eq!(error["error"]["code"], "network_unavailable", "{error}");
        assert!(bay.processes_of(&sandbox.locker).is_empty());
        api.sandbox(json!({ "profile": "shell-only" })).unharmed();
        return;
    }
    let everywhere = Listener::bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let own: Vec<SocketAddr> =
        net::private_addresses().into_iter().map(|a| (a, everywhere.addr().port()).into()).collect();
    for target in &own {
        connect(*target);
    }
    while everywhere.reached() {}
    let mut targets = own.clone();
    targets.extend(mapped(&own));
    targets.push(bay.addr());
    targets.push((Ipv4Addr::LOCALHOST, everywhere.addr().port()).into());
    unreachable(&sandbox, &targets);
    assert!(!everywhere.reached(), "a connection came through");
    policy_stands(&sandbox);
}

/// User code cannot lift the policy.
fn policy_stands(sandbox: &Sandbox) {
    let lifted = sandbox.shell_ok(
        "for c in 'route flush table all' 'rule flush' 'rule add pref 1 table main' 'link set lo down' \
         'route add 10.0.0.0/8 dev eth0' 'addr add 10.9.9.9/8 dev eth0' 'link add d type veth' 'netns add n'; do \
         ip $c >/dev/null 2>&1 && echo \"$c\"; done; nft flush ruleset 2>/dev/null && echo nft; true",
    );
    assert_eq!(lifted, "", "user code may change its network");
}

/// The default gateway, from the routing table.
const GATEWAY: &str = r"
import socket
for line in open('/proc/net/route').read().split('\n')[1:]:
    field = line.split()
    if len(field) > 2 and field[1] == '00000000':
        print(socket.inet_ntoa(bytes.fromhex(field[2])[::-1]))
        break
";

fn mapped(targets: &[SocketAddr]) -> Vec<SocketAddr> {
    let v6 = |t: &SocketAddr| match t.ip() {
        IpAddr::V4(v4) => Some(SocketAddr::new(v4.to_ipv6_mapped().into(), t.port())),
        IpAddr::V6(_) => None,
    };
    targets.iter().filter_map(v6).collect()
}

#[track_caller]
fn connect(target: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&target, Duration::from_secs(3)).unwrap_or_else(|e| panic!("{target}: {e}"))
}

/// User code connects to none of these.
#[track_caller]
fn unreachable(sandbox: &Sandbox, targets: &[SocketAddr]) {
    let list: Vec<(String, u16)> = targets.iter().map(|t| (t.ip().to_string(), t.port())).collect();
    let code = format!(
        "import json, socket\nsaid = []\nfor host, port in {}:\n  try:\n    socket.create_connection((host, port), 1).close()\n    said.append('connected')\n  except OSError as e: said.append(str(e))\nprint(json.dumps(said))",
        json!(list)
    );
    let said: Vec<Value> = serde_json::from_str(&sandbox.python_ok(&code)).expect("a list");
    for (target, got) in targets.iter().zip(&said) {
        assert_ne!(got, "connected", "user code reaches {target}: {said:?}");
    }
}
