//! Egress, in a network namespace of this test's own with a stand-in for the internet: no packet leaves this machine.
//!
//! The stand-in runtime sets no routes inside, so what is seen here is the wall outside.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::super::state::State;
use super::super::*;
use super::harness::*;
use crate::driver::Network;

/// Runs a test below in namespaces of its own, with this command as its innermost part.
fn in_a_namespace(inner: Command) {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("internet.sh");
    std::fs::write(&script, include_bytes!("internet.sh")).unwrap();
    let alive = dir.path().join("alive");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &alive,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    // Held open for as long as this test runs; the servers inside read from it.
    let mut held = std::fs::OpenOptions::new().read(true).write(true).open(&alive).unwrap();
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh"])
        .arg(&script)
        .arg(&alive)
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear()
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("BAY_TEST_INTERNET", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    held.write_all(b"xx").unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

fn prepared() -> bool {
    std::env::var_os("BAY_TEST_INTERNET").is_some()
}

#[test]
fn egress_as_root_reaches_the_internet_and_nothing_private() {
    if is_root() {
        let mut inner = Command::new(std::env::current_exe().unwrap());
        inner.args(only("egress::as_root_with_an_internet")).env("PATH", bwrap::PATH);
        in_a_namespace(inner);
    }
}

#[test]
fn egress_as_a_normal_user_reaches_the_internet_and_nothing_private() {
    if is_root() {
        let other = OtherUser::new();
        let mut inner = other.command();
        inner.args(only("egress::as_a_user_with_an_internet"));
        in_a_namespace(inner);
    }
}

/// Connects to each place side by side and says what answered: the address that the server saw, or null.
fn reach(places: &[(&str, &str, u16)]) -> String {
    format!(
        "import socket, threading\n\
        answer = {{}}\n\
        def reach(kind, address, port):\n\
        \x20   try:\n\
        \x20       with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM) as s:\n\
        \x20           s.settimeout(3); s.connect((address, port))\n\
        \x20           if kind == 'udp': s.send(b'?')\n\
        \x20           found = s.recv(100).decode()\n\
        \x20   except OSError: found = None\n\
        \x20   answer[f'{{kind}} {{address}} {{port}}'] = found\n\
        threads = [threading.Thread(target=reach, args=place) for place in {}]\n\
        for t in threads: t.start()\n\
        for t in threads: t.join()\n",
        json!(places).to_string().replace('[', "(").replace(']', ",)")
    )
}

const PRIVATE: [(&str, &str, u16); 7] = [
    ("tcp", "10.9.9.9", 8080),
    ("tcp", "172.20.1.1", 8080),
    ("tcp", "192.168.77.7", 8080),
    ("tcp", "169.254.169.254", 8080),
    ("tcp", "100.64.9.9", 8080),
    // The resolver is for names alone; this machine is not for sandboxes at all.
    ("tcp", "10.99.0.53", 8080),
    ("tcp", "203.0.113.2", 8080),
];

fn assert_walled(found: &Value) {
    for (kind, address, port) in PRIVATE {
        assert_eq!(found[format!("{kind} {address} {port}")], Value::Null, "{address} in {found:#}");
    }
}

fn nft(args: &[&str]) -> String {
    command::run("nft", args, None, PATIENCE).unwrap()
}

fn egress_spec(name: &str) -> ContainerSpec {
    ContainerSpec { network: Network::Egress, ..spec(name) }
}

fn forwarding() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/conf/up0/forwarding").unwrap().trim().to_owned()
}

#[tokio::test]
async fn as_root_with_an_internet() {
    if !prepared() {
        return;
    }
    // Another firewall that forwards nothing, as Docker's does.
    nft(&[
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
    ]);
    let bay = Bay::new();
    assert_eq!(
        bay.driver.features().networks,
        [Network::None, Network::Egress],
        "{:?}",
        bay.driver.features().notes
    );
    let one = bay.run_with(&egress_spec("one"), &config()).await;
    let two = bay.run_with(&egress_spec("two"), &config()).await;
    bay.init(
        &two,
        "import socket, threading\nstate['s'] = socket.create_server(('0.0.0.0', 8080))\nanswer = 0",
    )
    .await;

    let mut places =
        vec![("tcp", "198.51.100.7", 8080), ("tcp", "10.99.0.53", 53), ("udp", "10.99.0.53", 53)];
    places.extend(PRIVATE);
    // This machine's end of the wire, and the neighbour.
    let addresses = |container: &ContainerRef| {
        let state: State = serde_json::from_value(container.backend.clone()).unwrap();
        network::addresses(&state.network.unwrap()).unwrap()
    };
    let (wire, neighbour) = (addresses(&one).gateway.to_string(), addresses(&two).inside.to_string());
    let walls = [("tcp", wire.as_str(), 8080), ("tcp", wire.as_str(), 53), ("tcp", neighbour.as_str(), 8080)];
    places.extend(walls);
    let found = bay.user(&one, &reach(&places)).await;
    for open in ["tcp 198.51.100.7 8080", "tcp 10.99.0.53 53", "udp 10.99.0.53 53"] {
        assert_eq!(found[open], "203.0.113.2", "through this machine's address: {found:#}");
    }
    assert_walled(&found);
    for (kind, address, port) in walls {
        assert_eq!(found[format!("{kind} {address} {port}")], Value::Null, "{found:#}");
    }

    // Stopped and started again at once, with the same addresses.
    bay.driver.stop(&two, Duration::ZERO).await.unwrap();
    let two = bay.driver.start(&two, &egress_spec("two"), &config()).await.unwrap();
    let found = bay.user(&two, &reach(&[("tcp", "198.51.100.7", 8080), ("tcp", "10.9.9.9", 8080)])).await;
    assert_eq!(found, json!({"tcp 198.51.100.7 8080": "203.0.113.2", "tcp 10.9.9.9 8080": null}));

    let network = bay.init(&one, "answer = config['network']").await;
    assert_eq!(network["mode"], "policy_routes");
    assert_eq!(network["allow"], json!(["10.99.0.53"]));
    for denied in ["10.0.0.0/8", "169.254.0.0/16", "203.0.113.2/32", "fc00::/7"] {
        assert!(network["deny"].as_array().unwrap().contains(&json!(denied)), "{denied} in {network:#}");
    }
    let inside = "import socket\n\
        answer = {'if': sorted(n for _, n in socket.if_nameindex()), 'v6': [l.split()[-1] for l in open('/proc/net/if_inet6')], 'resolv': open('/etc/resolv.conf').read(),\n\
        'caps': [l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')][0]}";
    let inside = bay.init(&one, inside).await;
    assert_eq!(inside["if"], json!(["eth0", "lo"]));
    assert_eq!(inside["v6"], json!(["lo"]), "no IPv6 address");
    assert!(inside["resolv"].as_str().unwrap().starts_with("nameserver 10.99.0.53\n"));
    assert_eq!(inside["caps"], "00000000000010e1", "the four and NET_ADMIN, for init to set routes and drop");

    assert_eq!(
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(),
        "0",
        "for these interfaces alone"
    );
    assert_eq!(forwarding(), "1");
    // A later Bay knows which networks are taken, and its firewall is as good.
    let later = bay.again();
    later.destroy(&one).await.unwrap();
    later.volume_create("lkr-three").await.unwrap();
    let three = later.create(&egress_spec("three")).await.unwrap();
    let three = later.start(&three, &egress_spec("three"), &config()).await.unwrap();
    let found = ask(&later, &three, &reach(&places), true).await;
    assert_eq!(found["tcp 198.51.100.7 8080"], "203.0.113.2", "{found:#}");
    assert_walled(&found);
    assert!(nft(&["list", "tables"]).contains("bay_by"));
    for container in later.list().await.unwrap() {
        later.destroy(&container).await.unwrap();
    }
    assert_eq!(forwarding(), "0");
    drop(later);
    assert!(
        !nft(&["list", "tables"]).contains("bay_by"),
        "the firewall goes with the Bay that leaves nothing"
    );
    let links = command::run("ip", &["-brief", "link"], None, PATIENCE).unwrap();
    assert!(!links.lines().any(|line| line.starts_with("by")), "{links}");
}

#[tokio::test]
async fn as_a_user_with_an_internet() {
    if !prepared() {
        return;
    }
    let bay = Bay::new();
    assert_eq!(
        bay.driver.features().networks,
        [Network::None, Network::Egress],
        "{:?}",
        bay.driver.features().notes
    );
    let container = bay.run_with(&egress_spec("one"), &config()).await;
    let mut places =
        vec![("tcp", "198.51.100.7", 8080), ("tcp", "10.99.0.53", 53), ("udp", "10.99.0.53", 53)];
    places.extend(PRIVATE);
    let found = bay.user(&container, &reach(&places)).await;
    for open in ["tcp 198.51.100.7 8080", "tcp 10.99.0.53 53", "udp 10.99.0.53 53"] {
        assert!(found[open].is_string(), "{found:#}");
    }
    assert_walled(&found);
    assert_eq!(bay.init(&container, "answer = config['network']").await, json!({"mode": "enforced"}));
    let (_, state) = bay.driver.inner.load("one").unwrap().unwrap();
    let helper = state.started.unwrap().helper.unwrap();
    assert!(helper.open().unwrap().is_some());
    bay.driver.destroy(&container).await.unwrap();
    assert!(helper.open().unwrap().is_none(), "the helper ends with its sandbox");
}
