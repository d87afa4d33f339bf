//! What user code can reach. Every address used here is one of this machine's own, given to it first where need be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use bay_tests::config::Profile;
use bay_tests::net::{Listener, OwnAddress, private_addresses};
use bay_tests::{Bay, Options, Sandbox, is_root};
use serde_json::{Value, json};

#[test]
fn without_a_network_there_is_only_loopback() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({}));
    let interfaces = sandbox.shell_ok("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '");
    assert_eq!(interfaces, "lo");
    let own = Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut targets = vec![bay.addr(), own.addr()];
    let everywhere = Listener::bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    targets
        .extend(private_addresses().into_iter().map(|a| SocketAddr::new(a.into(), everywhere.addr().port())));
    for (target, got) in targets.iter().zip(connects(&sandbox, &targets)) {
        assert_ne!(got, "connected", "{target}");
    }
    assert!(!own.reached() && !everywhere.reached());
    // Loopback itself works: servers inside a sandbox can be spoken to inside.
    let code = "import socket\ns = socket.create_server(('127.0.0.1', 0))\nc = socket.create_connection(s.getsockname(), 2)\nprint('own loopback')";
    assert_eq!(sandbox.python_ok(code), "own loopback");
    // No packet sockets and no other families that reach past a network namespace.
    let odd = "import socket\nout = []\nfor f, t in ((17, 3), (40, 1), (38, 5), (16, 3)):\n  try:\n    s = socket.socket(f, t, 0)\n    out.append(f)\n  except OSError: pass\nprint([f for f in out if f in (17, 40)])";
    let opened = sandbox.python_ok(odd);
    assert!(!opened.contains("17"), "packet sockets: {opened}");
}

#[test]
fn egress_reaches_no_private_or_host_address() {
    let mut web = Profile::python().named("web");
    web.network = "egress".into();
    let bay = Bay::start(Options::default().profile(web));
    let api = bay.api();
    let made = api.post("/v1/sandboxes", &json!({ "profile": "web", "start": "wait" })).send();
    let shown = made.expect(201);
    let sandbox = api.get(&format!("/v1/sandboxes/{}", shown["id"].as_str().unwrap())).send().expect(200);
    let id = sandbox["id"].as_str().unwrap().to_owned();
    let first = api.post(&format!("/v1/sandboxes/{id}/python/exec"), &json!({ "code": "1" })).send();
    if first.status != 200 {
        // Where the policy cannot be given, nothing runs; and `none` still works.
        let error = first.expect(503);
        assert_eq!(error["error"]["code"], "network_unavailable", "{error}");
        assert!(!is_root(), "root can always give it: {error}\n{}", bay.log());
        api.sandbox(json!({ "profile": "shell-only" })).unharmed();
        return;
    }
    let run = |code: &str| {
        api.post(&format!("/v1/sandboxes/{id}/python/exec"), &json!({ "code": code })).send().expect(200)
    };
    let interfaces = run("import socket\nprint([n for _, n in socket.if_nameindex()])")["output"].clone();
    assert_ne!(interfaces, "['lo']\n", "egress has an interface");

    // Addresses of each kind, made this machine's own for the time of the test.
    let wanted =
        [[10, 213, 77, 1], [172, 30, 213, 1], [192, 168, 213, 1], [100, 100, 213, 1], [169, 254, 169, 254]];
    let given: Vec<OwnAddress> = if is_root() {
        wanted.into_iter().filter_map(|a| OwnAddress::give(a.into())).collect()
    } else {
        Vec::new()
    };
    assert!(!is_root() || !given.is_empty(), "root could not make an interface");
    let mut addresses: Vec<Ipv4Addr> = given.iter().map(|g| g.addr).collect();
    addresses.extend(private_addresses());
    let everywhere = Listener::bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let port = everywhere.addr().port();
    for address in &addresses {
        // The test has teeth: the address answers here.
        let target = SocketAddr::new((*address).into(), port);
        TcpStream::connect_timeout(&target, Duration::from_secs(2))
            .unwrap_or_else(|e| panic!("{target}: {e}"));
    }
    while everywhere.reached() {}
    // The host's end of whatever link leads out of the sandbox.
    let gateway = run(GATEWAY)["output"].as_str().unwrap_or_default().trim().parse::<Ipv4Addr>().ok();
    addresses.extend(gateway.filter(|g| is_own(*g)));
    let mut targets: Vec<SocketAddr> = addresses.iter().map(|a| SocketAddr::new((*a).into(), port)).collect();
    targets.extend(addresses.iter().map(|a| SocketAddr::new(a.to_ipv6_mapped().into(), port)));
    targets.push(bay.addr());
    let said = run(&connect_code(&targets));
    let said: Vec<Value> = serde_json::from_str(said["output"].as_str().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {said}"));
    for (target, got) in targets.iter().zip(&said) {
        assert_ne!(got, "connected", "user code reaches {target}: {said:?}");
    }
    assert!(!everywhere.reached(), "a connection came through: {said:?}");
    // It cannot lift the policy either.
    let lifted = "import subprocess\nfor c in (['ip','route','flush','table','all'], ['ip','rule','flush'], ['ip','link','set','lo','down']):\n  try: print(subprocess.run(c, capture_output=True).returncode)\n  except OSError: print('none')";
    let lifted = run(lifted)["output"].as_str().unwrap_or_default().to_owned();
    assert!(!lifted.lines().any(|l| l == "0"), "{lifted}");
    assert_eq!(api.call("DELETE", &format!("/v1/sandboxes/{id}")).send().status, 204);
}

/// The default gateway, from the routing table.
const GATEWAY: &str = "import socket\nfor l in open('/proc/net/route').read().split('\\n')[1:]:\n  f = l.split()\n  if len(f) > 2 and f[1] == '00000000': print(socket.inet_ntoa(bytes.fromhex(f[2])[::-1])); break";

fn is_own(address: Ipv4Addr) -> bool {
    std::net::TcpListener::bind((address, 0)).is_ok()
}

fn connect_code(targets: &[SocketAddr]) -> String {
    let list: Vec<(String, u16)> = targets.iter().map(|t| (t.ip().to_string(), t.port())).collect();
    format!(
        "import json, socket\nsaid = []\nfor host, port in {}:\n  try:\n    socket.create_connection((host, port), 1).close()\n    said.append('connected')\n  except OSError as e: said.append(str(e))\nprint(json.dumps(said))",
        json!(list)
    )
}

fn connects(sandbox: &Sandbox, targets: &[SocketAddr]) -> Vec<Value> {
    serde_json::from_str(&sandbox.python_ok(&connect_code(targets))).expect("a list")
}
