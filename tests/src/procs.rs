//! Processes of sandboxes as the host sees them, read from `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::engine::Engine;

/// A process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Pid as the test sees it.
    pub pid: i32,
    /// Parent.
    pub parent: i32,
    /// Pid in each nested namespace, outermost first.
    pub ns_pids: Vec<i32>,
    /// Name.
    pub name: String,
    /// Real uid as the test sees it.
    pub uid: u32,
    /// `S`, `R`, `Z`, …
    pub state: char,
    /// Arguments, separated by blanks.
    pub cmdline: String,
    /// The container it runs in and that container's engine, on Docker.
    pub container: Option<(Engine, String)>,
}

/// Ends every process of a container that has this name, from within: what is a pid to the engine need not be one here.
const KILL_BY_NAME: &str =
    r#"for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = "$0" ] && kill -9 ${p#/proc/}; done; true"#;

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(|v| v.trim().to_owned())
        };
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Some(Self {
            pid,
            parent: field("PPid")?.parse().ok()?,
            ns_pids: field("NSpid")?.split_whitespace().filter_map(|p| p.parse().ok()).collect(),
            name: field("Name")?,
            uid: field("Uid")?.split_whitespace().next()?.parse().ok()?,
            state: field("State")?.chars().next()?,
            cmdline: String::from_utf8_lossy(&cmdline).replace('\0', " ").trim_end().to_owned(),
            container: None,
        })
    }

    /// Whether it is pid 1 of the outermost pid namespace of a sandbox.
    pub fn is_init(&self) -> bool {
        self.ns_pids.len() == 2 && self.ns_pids[1] == 1
    }

    /// Ends it at once; in a container, every process of its name.
    pub fn kill(&self) {
        if let Some((engine, container)) = &self.container {
            if self.is_init() {
                engine.kill(container);
            } else {
                // It may have ended with another one by now.
                let _ = engine.exec(container, &["sh", "-c", KILL_BY_NAME, &self.name]);
            }
            return;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Every process there is.
pub fn all() -> BTreeMap<i32, Process> {
    let entries = std::fs::read_dir("/proc").expect("read /proc");
    entries
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Process::read(pid)?)))
        .collect()
}

/// Every process of sandboxes whose locker lies beneath `dir`, with what belongs to them (launcher, init,
/// agent), but not `bay` itself.
///
/// A process is one of them when `dir` shows in its mounts or arguments, or when it descends from the same
/// launched process as one that does: a sandbox's own mounts name the locker's directory on the host, and the
/// agent, which hides its mounts from other users, has a parent that does not.
pub fn of_dir(dir: &Path, bay: Option<i32>) -> Vec<Process> {
    let all = all();
    let needle = dir.to_string_lossy().into_owned();
    let own_mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    assert!(!own_mounts.contains(&needle), "the host's own mounts name {needle}");
    let me = i32::try_from(std::process::id()).expect("a pid");
    let mut tops = BTreeSet::new();
    for process in all.values() {
        if process.pid == me || Some(process.pid) == bay {
            continue;
        }
        let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", process.pid)).unwrap_or_default();
        if mounts.contains(&needle) || process.cmdline.contains(&needle) {
            tops.insert(top_of(process, &all, bay));
        }
    }
    all.values()
        .filter(|p| p.pid != me && Some(p.pid) != bay && p.state != 'Z')
        .filter(|p| ancestors(p, &all).any(|a| tops.contains(&a)))
        .cloned()
        .collect()
}

/// The launched process that this one descends from: climbs only through what Bay starts.
fn top_of(process: &Process, all: &BTreeMap<i32, Process>, bay: Option<i32>) -> i32 {
    let mut top = process;
    while let Some(parent) = all.get(&top.parent) {
        let inside = parent.ns_pids.len() > 1;
        let ours = inside || ["bwrap", "ship", "bay"].iter().any(|n| parent.name.starts_with(n));
        if parent.pid == 1 || Some(parent.pid) == bay || !ours || is_server(parent) {
            break;
        }
        top = parent;
    }
    top.pid
}

fn is_server(process: &Process) -> bool {
    process.cmdline.contains(" serve") || process.cmdline.contains(" quickstart")
}

fn ancestors<'a>(process: &'a Process, all: &'a BTreeMap<i32, Process>) -> impl Iterator<Item = i32> + 'a {
    let mut next = Some(process);
    std::iter::from_fn(move || {
        let now = next?;
        next = all.get(&now.parent).filter(|p| p.pid != now.pid);
        Some(now.pid)
    })
}
