//! What a container on Docker is made of: what the engine was asked for, and what that comes to inside.

use bay_tests::config::Profile;
use bay_tests::{Bay, Options, Sandbox, driver};
use serde_json::{Value, json};

/// CHOWN, KILL, SETGID, SETUID.
const KEPT: u64 = 1 | 1 << 5 | 1 << 6 | 1 << 7;
const NET_ADMIN: u64 = 1 << 12;

fn egress() -> Profile {
    let mut profile = Profile::shell().named("web");
    profile.network = "egress".into();
    profile
}

/// The one container there is, as the engine shows it.
fn container(bay: &Bay) -> Value {
    let containers = bay.containers().expect("on Docker");
    let all = containers.all();
    assert_eq!(all.len(), 1, "{all:?}");
    containers.engine.get(&format!("/containers/{}/json", all[0]["Id"].as_str().expect("an id")))
}

fn words(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    let mut words: Vec<String> = list.filter_map(|v| v.as_str()).map(str::to_owned).collect();
    words.sort();
    words
}

#[test]
fn the_engine_is_asked_for_no_more_than_a_sandbox_needs() {
    let bay = Bay::start(Options::default().profile(egress()));
    let _sandbox = bay.api().sandbox(json!({ "profile": "web", "start": "wait" }));
    let shown = container(&bay);
    let host = &shown["HostConfig"];
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(words(&host["CapDrop"]), ["ALL"]);
    let added = words(&host["CapAdd"]);
    let added: Vec<&str> = added.iter().map(|cap| cap.trim_start_matches("CAP_")).collect();
    assert_eq!(added, ["CHOWN", "KILL", "NET_ADMIN", "SETGID", "SETUID"]);
    // Nothing here turns the engine's own filters off.
    assert_eq!(words(&host["SecurityOpt"]), ["no-new-privileges"]);
    for (mode, harmless) in [
        ("PidMode", &[""][..]),
        ("UTSMode", &[""]),
        ("UsernsMode", &[""]),
        ("IpcMode", &["private"]),
        ("CgroupnsMode", &["", "host", "private"]),
    ] {
        let set = host[mode].as_str().unwrap_or_default();
        assert!(harmless.contains(&set), "{mode} is {set}");
    }
    let network = host["NetworkMode"].as_str().unwrap_or_default();
    assert!(
        !["host", "bridge", "default"].contains(&network) && !network.starts_with("container:"),
        "{network}"
    );
    for list in ["Devices", "VolumesFrom", "Links", "GroupAdd", "ExtraHosts", "Binds", "DeviceRequests"] {
        assert!(
            words(&host[list]).is_empty() && host[list].as_array().is_none_or(Vec::is_empty),
            "{list}: {host}"
        );
    }
    for (_, bindings) in host["PortBindings"].as_object().into_iter().flatten() {
        for binding in bindings.as_array().into_iter().flatten() {
            assert_eq!(binding["HostIp"], "127.0.0.1", "published to others: {host}");
        }
    }
    mounts(&bay, &shown);
    // The environment and the command line say no secret and nothing of a tenant's.
    let environment = words(&shown["Config"]["Env"]);
    assert!(
        environment.iter().all(|v| v.starts_with("PATH=") || v.ends_with('=') || !v.contains('=')),
        "{environment:?}"
    );
}

/// Volumes, and of the machine's own directories only the one with the socket.
fn mounts(bay: &Bay, shown: &Value) {
    let data = bay.data_dir();
    let mut seen = Vec::new();
    for mount in shown["Mounts"].as_array().expect("mounts") {
        let mut place = mount["Destination"].as_str().expect("a place").to_owned();
        // The runtime is where no image can expect it.
        if place.strip_prefix("/.bay-").is_some_and(|digits| digits.len() == 32) {
            "the runtime".clone_into(&mut place);
        }
        match (place.as_str(), mount["Type"].as_str()) {
            ("the runtime" | "/.bay", Some("volume")) => assert_eq!(mount["RW"], false, "{mount}"),
            ("/.bay/spool" | "/workspace", Some("volume")) => {}
            ("/.bay-socket", Some("bind")) => {
                let source = mount["Source"].as_str().unwrap_or_default();
                assert!(source.starts_with(data.to_str().expect("a path")), "{mount}");
                use std::os::unix::fs::PermissionsExt as _;
                let mode = std::fs::metadata(source).expect("the directory").permissions().mode();
                assert_eq!(mode & 0o777, 0o700, "{mount}");
            }
            _ => panic!("mounted: {mount}"),
        }
        seen.push(place);
    }
    seen.sort();
    let by_socket = ["socket", "auto"].contains(&driver::connect().as_str());
    let expected: &[&str] = if by_socket {
        &["/.bay", "/.bay-socket", "/.bay/spool", "/workspace", "the runtime"]
    } else {
        &["/.bay", "/.bay/spool", "/workspace", "the runtime"]
    };
    assert_eq!(seen, expected);
}

/// A set of capabilities of a process, by its name in `/proc/PID/status`.
fn capabilities(sandbox: &Sandbox, process: &str, set: &str) -> u64 {
    let line = sandbox.shell_ok(&format!("grep ^{set}: /proc/{process}/status"));
    let digits = line.split_whitespace().nth(1).expect("a set");
    u64::from_str_radix(digits, 16).expect("hexadecimal")
}

#[test]
fn init_keeps_no_net_admin_and_user_code_no_capability() {
    let bay = Bay::start(Options::default().profile(egress()));
    let sandbox = bay.api().sandbox(json!({ "profile": "web", "start": "wait" }));
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(capabilities(&sandbox, "self", set), 0, "{set}");
        let of_init = capabilities(&sandbox, "1", set);
        assert_eq!(of_init & !KEPT, 0, "{set} of init: {of_init:x}");
    }
    // What cannot be had again even by a program that is root's.
    assert_eq!(capabilities(&sandbox, "self", "CapBnd") & !(KEPT | NET_ADMIN), 0);
    let processes = sandbox.shell_ok("grep -h ^CapEff: /proc/[0-9]*/status | sort -u | cut -f 2");
    for effective in processes.lines() {
        let effective = u64::from_str_radix(effective, 16).expect("hexadecimal");
        assert_eq!(effective & !KEPT, 0, "{processes}");
    }
    let text =
        sandbox.shell_ok("grep -hE '^(NoNewPrivs|Seccomp):' /proc/self/status /proc/1/status | sort -u");
    let fields: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(fields, [["NoNewPrivs:", "1"], ["Seccomp:", "2"]], "{text}");
    // Of what Docker's own filter refuses and Ship's does not speak.
    let personality = "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nprint(c.syscall(135, 0x40000), ctypes.get_errno())";
    let said = sandbox.shell_ok(&format!("python3 -c \"{personality}\""));
    assert_eq!(said.trim(), "-1 1", "Docker's default seccomp profile is not in force");
}

#[test]
fn what_user_code_writes_has_bounds_and_the_root_is_not_writable() {
    let small = Profile::shell().named("small").container(json!({ "docker": { "tmp": "16m" } }));
    let bay = Bay::start(Options::default().profile(small));
    let sandbox = bay.api().sandbox(json!({ "profile": "small" }));
    let root = sandbox.shell_ok("for d in / /etc /usr /var /opt /root /home /srv /.bay; do touch $d/x 2>/dev/null && echo $d; done; true");
    assert_eq!(root, "");
    let filled = sandbox.shell("head -c 64m /dev/zero > /tmp/big");
    assert_eq!(filled["success"], false, "{filled}");
    let size: u64 = sandbox.shell_ok("stat -c %s /tmp/big").trim().parse().expect("a size");
    assert!((8 << 20..=16 << 20).contains(&size), "{size}");
    sandbox.shell_ok("rm /tmp/big");
    // The other places in memory.
    for (place, most) in [("/dev/shm", 64 << 20), ("/run", 16 << 20)] {
        let size: u64 = sandbox
            .shell_ok(&format!("stat -f -c '%b %S' {place}"))
            .split_whitespace()
            .map(|n| n.parse::<u64>().expect("a number"))
            .product();
        assert!(size <= most, "{place} takes {size}");
    }
    // Programs run from there: people build in it.
    sandbox.shell_ok("printf '#!/bin/sh\necho built' > /tmp/program; chmod +x /tmp/program; /tmp/program");
    let options = sandbox.shell_ok("grep ' /tmp ' /proc/mounts");
    assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
    sandbox.unharmed();
}

#[test]
fn processes_and_memory_have_bounds() {
    let bounds = json!({ "resources": { "cpus": 1.0, "memory": "192m", "pids": 64 } });
    let bay = Bay::start(Options::default().profile(Profile::shell().named("tight").container(bounds)));
    let sandbox = bay.api().sandbox(json!({ "profile": "tight" }));
    let forks = "import os, time\nmade = 0\nfor _ in range(300):\n  try: pid = os.fork()\n  except OSError: break\n  \
                 if pid == 0: time.sleep(60); os._exit(0)\n  made += 1\nprint(made, flush=True)\nos.killpg(0, 9)";
    sandbox.write("forks.py", forks);
    let said = sandbox.shell("timeout 30 python3 forks.py");
    let made: u32 =
        said["stdout"].as_str().unwrap_or_default().trim().parse().unwrap_or_else(|_| panic!("{said}"));
    assert!((8..64).contains(&made), "{made} processes: {said}");
    sandbox.unharmed();
    let eaten = sandbox.shell("python3 -c 'x = bytearray(400 << 20); print(len(x))'");
    assert_eq!((&eaten["success"], &eaten["stdout"]), (&json!(false), &json!("")), "{eaten}");
    sandbox.unharmed();
    assert_eq!(sandbox.show()["session_seq"], 1, "user code died, not the container");
}
