//! What of the host shows inside.

use bay_tests::{Bay, Options, Sandbox, is_root, on_docker};
use serde_json::json;

/// In Bay's environment and in files of the host; must not show inside.
const MARKER: &str = "bay-test-marker-7f3a";

#[test]
fn nothing_of_the_host_shows_inside() {
    let bay = Bay::start(Options {
        env: vec![("HOST_SECRET".into(), MARKER.into())],
        files: vec![(MARKER.into(), b"host file".to_vec())],
        ..Options::default()
    });
    let api = bay.api();
    let (sandbox, neighbour) = (api.sandbox(json!({})), api.sandbox(json!({ "profile": "shell-only" })));

    // Environment: of the shell, of the kernel, and of every process it can look at.
    let seen = sandbox.shell_ok("env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; true");
    assert!(!seen.contains(MARKER), "{seen}");
    for name in ["BAY_", "CARGO_", "SSH_", "HOST_SECRET"] {
        assert!(!seen.lines().any(|l| l.starts_with(name)), "{name}: {seen}");
    }
    let kernel = sandbox.python_ok("import os\nprint(sorted(os.environ))");
    assert!(!kernel.contains("BAY_") && !kernel.contains("HOST_SECRET"), "{kernel}");

    // Files.
    let found = sandbox.shell_ok(&format!(
        "find / \\( -path /proc -o -path /usr/share \\) -prune -o -name '*{MARKER}*' -print 2>/dev/null; true"
    ));
    assert_eq!(found, "");
    let host_home = std::env::var("HOME").unwrap_or_default();
    let mut dirs =
        vec!["/root", "/home", "/srv", "/mnt", "/media", "/boot", "/var/lib/bay", &host_home, "/host"];
    if !on_docker() {
        // An engine shows the machine's devices, and lets nobody change them: see below.
        dirs.push("/sys");
    }
    for dir in dirs {
        let listed = sandbox.shell_ok(&format!("ls -A '{dir}' 2>/dev/null; true"));
        assert_eq!(listed, "", "{dir} shows");
    }
    assert_eq!(sandbox.shell_ok("ls -A /tmp /var/tmp | grep bay-test; true"), "");
    if !on_docker() {
        etc_of_the_host(&sandbox);
    }

    // Sockets and devices.
    let sockets =
        sandbox.shell_ok("find / -path /proc -prune -o -type s -user root -print 2>/dev/null; true");
    assert_eq!(sockets, "");
    assert_eq!(
        sandbox.shell_ok("ls /run/docker.sock /var/run/docker.sock /run/dbus /run/systemd 2>/dev/null; true"),
        ""
    );
    let devices = sandbox.shell_ok("find /dev -type b -o -type c | sort | tr '\\n' ' '");
    for device in devices.split_whitespace() {
        let known = ["console", "full", "null", "ptmx", "pts/ptmx", "random", "tty", "urandom", "zero"];
        assert!(known.contains(&device.trim_start_matches("/dev/")), "{devices}");
    }

    // Processes.
    let names = sandbox.shell_ok("cat /proc/[0-9]*/comm | sort -u | tr '\\n' ' '");
    assert!(
        !names.split_whitespace().any(|n| n == "bay" || n == "systemd" || n.contains("nextest")),
        "{names}"
    );

    // The neighbour.
    sandbox.shell_ok(
        "echo mine > /workspace/mine; echo mine > /tmp/mine; echo mine > /run/mine 2>/dev/null; true",
    );
    assert_eq!(neighbour.shell_ok("ls -A /workspace /tmp /run | grep mine; true"), "");
    // Where the locker lies on the host may show in the mount table; that path leads nowhere inside.
    let data = bay.data_dir();
    assert_eq!(sandbox.shell_ok(&format!("ls -A '{}' 2>/dev/null; true", data.display())), "");

    let inside: Vec<_> = bay.processes().into_iter().filter(|p| p.ns_pids.len() > 1).collect();
    assert!(!inside.is_empty());
    // Whether ids are mapped in a container is up to whoever set up its engine.
    if is_root() && !on_docker() {
        for process in inside {
            assert!(
                process.uid >= 100_000,
                "a sandbox process is uid {} on the host: {process:?}",
                process.uid
            );
        }
    }
}

/// Where the host's own system directories are shown, only so much of its `/etc` is; an image has one of its own.
fn etc_of_the_host(sandbox: &Sandbox) {
    let etc = sandbox.shell_ok("ls -A /etc");
    for name in
        ["shadow", "gshadow", "sudoers", "ssh", "machine-id", "fstab", "cron.d", "pip.conf", "apt", "systemd"]
    {
        assert!(!etc.lines().any(|l| l == name), "/etc/{name} shows: {etc}");
    }
    let users = sandbox.shell_ok("cut -d: -f1 /etc/passwd | sort | tr '\\n' ' '");
    for user in users.split_whitespace() {
        assert!(["root", "shipyard", "nobody", "bay", "agent", "ship"].contains(&user), "{users}");
    }
}

#[test]
fn nothing_outside_of_the_workspace_can_be_changed() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({}));
    let probe = r#"
import os, stat
opened = []
def try_open(path):
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode):
            # Opened and closed, never written, and never truncated.
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            opened.append(path)
    except OSError:
        pass
for top in ('/proc/sys', '/sys', '/proc/irq', '/proc/bus', '/proc/fs', '/proc/acpi', '/proc/scsi'):
    for folder, _, files in os.walk(top):
        for name in files:
            try_open(os.path.join(folder, name))
for name in os.listdir('/proc'):
    if not name.isdigit() and name not in ('self', 'thread-self'):
        try_open('/proc/' + name)
print(len([1 for _, _, f in os.walk('/proc/sys') for _ in f]), opened)
"#;
    let seen = sandbox.python_ok(probe);
    let (count, opened) = seen.split_once(' ').expect("a count and a list");
    assert!(count.parse::<u32>().expect("a number") > 50, "/proc/sys was not looked at: {seen}");
    assert_eq!(opened, "[]", "these can be opened for writing");
    let shell = sandbox.shell_ok(
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/drop_caches /sys/power/state; do \
         ( : 3>>$f ) 2>/dev/null && echo $f; done; true",
    );
    assert_eq!(shell, "");
    let places = "/ /usr /usr/bin /usr/local /etc /bin /lib /opt /opt/bay /opt/bay/python /.bay /.bay/spool /run/ship/agent /var /var/lib /proc /sys";
    let made = sandbox.shell_ok(&format!(
        "for d in {places}; do ( : > $d/bay-probe ) 2>/dev/null && echo $d; mkdir $d/bay-probe-dir 2>/dev/null && echo $d; \
         done; true"
    ));
    assert_eq!(made, "", "user code can make files there");
    let changed = sandbox.shell_ok(
        "for f in /.bay/ship /etc/passwd /etc/resolv.conf /etc/hosts /opt/bay/python/bin/python3 /usr/bin/env; do \
         [ -e $f ] || continue; ( : 3>>$f ) 2>/dev/null && echo $f; chmod 777 $f 2>/dev/null && echo chmod $f; rm -f $f 2>/dev/null && [ ! -e $f ] \
         && echo rm $f; done; true",
    );
    assert_eq!(changed, "");
    let remounted = sandbox.shell_ok(
        "mount -o remount,rw / 2>/dev/null && echo rw; mount -t tmpfs t /tmp 2>/dev/null && echo t; true",
    );
    assert_eq!(remounted, "");
}
