//! What must be gone once every sandbox has been deleted.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::containers::Containers;
use crate::engine::Engine;
use crate::procs::{self, Process};
use crate::soon;

/// How long what was deleted may still be on its way out.
const GRACE: Duration = Duration::from_secs(10);

/// What the directories of tests are called.
pub(crate) const PREFIX: &str = "bay-test-";
/// In a test's directory, locked as long as the test lives.
const ALIVE: &str = "alive";
/// Younger directories may belong to a test that has not come to lock its file.
const SETTLED: Duration = Duration::from_secs(300);

/// Marks a test's directory as in use, for as long as the file is open.
pub(crate) fn mark_alive(home: &Path) -> File {
    let file = File::create(home.join(ALIVE)).expect("make the file that says a test is alive");
    file.lock().expect("lock it");
    file
}

/// Removes what a test that was killed left behind: nextest ends Bay with the test, but sandboxes outlive Bay.
pub(crate) fn sweep() {
    let own = rustix::process::geteuid().as_raw();
    for home in entries(&std::env::temp_dir()) {
        let ours = home.file_name().is_some_and(|n| n.to_string_lossy().starts_with(PREFIX))
            && home.symlink_metadata().is_ok_and(|m| {
                m.is_dir()
                    && m.uid() == own
                    && m.modified().is_ok_and(|t| t.elapsed().is_ok_and(|e| e > SETTLED))
            });
        if !ours {
            continue;
        }
        let Ok(alive) = File::open(home.join(ALIVE)) else { continue };
        if alive.try_lock().is_ok() {
            procs::of_dir(&home, None).iter().for_each(Process::kill);
            if let Some(containers) = engine_in(&home).and_then(|e| Containers::of(e, &home.join("data"))) {
                containers.remove_all();
            }
            let _ = std::fs::remove_dir_all(&home);
        }
    }
}

/// The engine that a test's Bay was configured with.
fn engine_in(home: &Path) -> Option<Engine> {
    let text = std::fs::read_to_string(home.join("bay.toml")).ok()?;
    let config: toml::Value = toml::from_str(&text).ok()?;
    let host = config.get("docker")?.get("host")?.as_str()?;
    (config.get("driver")?.get("kind")?.as_str()? == "docker").then(|| Engine::at(host))
}

/// What a Bay with sandboxes has, so that it can be seen to have gone.
#[derive(Debug, Default)]
pub(crate) struct Held {
    cgroups: BTreeSet<PathBuf>,
    containers: Option<Containers>,
    volumes: Vec<String>,
}

impl Held {
    /// Looks at it before anything is deleted.
    pub(crate) fn by(processes: &[Process], containers: Option<Containers>) -> Self {
        let volumes = containers.as_ref().map(Containers::volumes).unwrap_or_default();
        // On an engine cgroups are the engine's own affair.
        let cgroups = if containers.is_some() { BTreeSet::new() } else { cgroups_of(processes) };
        Self { cgroups, containers, volumes }
    }
}

/// A locker's directory.
pub fn locker_dir(data: &Path, locker: &str) -> PathBuf {
    data.join("lockers").join(locker)
}

/// The cgroups these processes are in and this test is not: those Bay made.
fn cgroups_of(processes: &[Process]) -> BTreeSet<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own: BTreeSet<&str> = own.lines().collect();
    let mut dirs = BTreeSet::new();
    for process in processes {
        let lines = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default();
        for line in lines.lines().filter(|l| !own.contains(l)) {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            dirs.extend(cgroup_dirs(controllers, path));
        }
    }
    dirs
}

/// Where a cgroup shows, for each hierarchy mounted on this machine.
fn cgroup_dirs(controllers: &str, path: &str) -> Vec<PathBuf> {
    let name = controllers.trim_start_matches("name=");
    let root = Path::new("/sys/fs/cgroup");
    let path = path.trim_start_matches('/');
    let places =
        if name.is_empty() { vec![root.into(), root.join("unified")] } else { vec![root.join(name)] };
    places.into_iter().map(|p: PathBuf| p.join(path)).filter(|p| !path.is_empty() && p.is_dir()).collect()
}

/// What is left of deleted sandboxes, in words; empty when all is well.
pub(crate) fn look(home: &Path, data: &Path, bay: Option<i32>, held: &Held) -> Vec<String> {
    let mut left = Vec::new();
    soon(GRACE, || {
        left.clear();
        for p in procs::of_dir(home, bay) {
            left.push(format!("process {} ({} {}) of uid {}", p.pid, p.name, p.cmdline, p.uid));
        }
        left.extend(entries(&data.join("lockers")).map(|e| format!("locker {}", e.display())));
        left.extend(
            entries(&data.join("run")).filter(|e| is_socket(e)).map(|e| format!("socket {}", e.display())),
        );
        left.extend(entries(&data.join("run/docker")).map(|e| format!("socket's place {}", e.display())));
        if let Some(containers) = &held.containers {
            left.extend(containers.left(&held.volumes));
        }
        left.extend(held.cgroups.iter().filter(|c| c.is_dir()).map(|c| format!("cgroup {}", c.display())));
        left.is_empty()
    });
    left
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    path.symlink_metadata().is_ok_and(|m| m.file_type().is_socket())
        // What the CLI talks to is Bay's own.
        && path.file_stem().is_none_or(|s| s != "admin")
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()))
}
