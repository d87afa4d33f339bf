//! Bounds of memory, processes and processor time by cgroups, version 1 or 2, controller by controller.
//!
//! A plain writer of a handful of files: one directory for this Bay, one in it for each container. Where no
//! directory can be made for a controller, rlimits inside the container have to do, and the driver says so.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::identity::{self, ProcessId};

/// The period over which processor time is shared out.
const CPU_PERIOD_US: u64 = 100_000;

/// Version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Version {
    /// One of the old hierarchies.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A controller that bounds something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Controller {
    /// Bytes.
    Memory,
    /// Processes and threads.
    Pids,
    /// Processor time.
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// A directory in which a directory for each container is made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parent {
    path: PathBuf,
    version: Version,
    controllers: BTreeSet<Controller>,
}

/// A container's directory in one hierarchy; stored, since a later Bay may run in another cgroup itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// Absolute directory.
    pub(super) path: PathBuf,
    version: Version,
    controllers: BTreeSet<Controller>,
}

/// What to write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes.
    pub(super) memory: u64,
    /// Processes and threads.
    pub(super) pids: u64,
    /// Cores.
    pub(super) cpus: f64,
}

/// Where containers of this Bay are bounded.
#[derive(Debug, Clone, Default)]
pub(super) struct Cgroups {
    parents: Vec<Parent>,
}

/// One mounted hierarchy, from `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    root: PathBuf,
    point: PathBuf,
    version: Version,
    options: Vec<String>,
}

impl Cgroups {
    /// Finds, controller by controller, a directory below this process's own cgroup in which more can be made.
    pub(super) fn probe(instance: &str) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::from_tables(&own, &mounts, &format!("bay-{instance}"), rustix::process::geteuid().is_root())
    }

    fn from_tables(own: &str, mountinfo: &str, name: &str, privileged: bool) -> Self {
        let mut parents = Vec::new();
        for mount in parse_mounts(mountinfo) {
            let Some(path) = own_path(own, &mount) else { continue };
            let relative = path.strip_prefix(&mount.root).unwrap_or(Path::new(""));
            let relative = relative.strip_prefix("/").unwrap_or(relative);
            let parent = match mount.version {
                Version::V1 => v1_parent(&mount, relative, name),
                Version::V2 => v2_parent(&mount, relative, name, privileged),
            };
            if let Some(parent) = parent {
                parents.push(parent);
            }
        }
        Self { parents }
    }

    fn has(&self, controller: Controller) -> bool {
        self.parents.iter().any(|parent| parent.controllers.contains(&controller))
    }

    /// True when memory and processes are both bounded by cgroups, so that rlimits need not do it.
    pub(super) fn enforces(&self) -> bool {
        self.has(Controller::Memory) && self.has(Controller::Pids)
    }

    /// For people: `cgroup v2 (memory, pids, cpu)`, `cgroup v1 (memory, pids)`, `rlimits`.
    pub(super) fn describe(&self) -> String {
        let mut parts = Vec::new();
        for version in [Version::V2, Version::V1] {
            let names: BTreeSet<Controller> = (self.parents.iter())
                .filter(|parent| parent.version == version)
                .flat_map(|parent| parent.controllers.iter().copied())
                .collect();
            if !names.is_empty() {
                let names: Vec<&str> = names.into_iter().map(Controller::name).collect();
                let version = if version == Version::V2 { "v2" } else { "v1" };
                parts.push(format!("cgroup {version} ({})", names.join(", ")));
            }
        }
        if !self.enforces() {
            parts.push("rlimits".to_owned());
        }
        parts.join(", ")
    }

    /// The groups that [`create`] will make for a container: stored first, so that a crash in between leaks none.
    pub(super) fn plan(&self, name: &str) -> Vec<Group> {
        let group = |parent: &Parent| Group {
            path: parent.path.join(name),
            version: parent.version,
            controllers: parent.controllers.clone(),
        };
        self.parents.iter().map(group).collect()
    }

    /// Removes the directories of this Bay where no container has one any more.
    pub(super) fn tidy(&self) {
        for parent in &self.parents {
            // One that is in use says so, and stays.
            let _ = fs::remove_dir(&parent.path);
        }
    }
}

/// Makes the directories of one container and writes its bounds; removes them again when that fails.
pub(super) fn create(groups: &[Group], bounds: Bounds) -> io::Result<()> {
    for group in groups {
        if let Err(error) = group.make().and_then(|()| group.limit(bounds)) {
            let _ = remove(groups, Duration::from_millis(200));
            return Err(io::Error::new(error.kind(), format!("{}: {error}", group.path.display())));
        }
    }
    Ok(())
}

impl Group {
    /// Makes the directory, and the one of this Bay above it when somebody tidied that away.
    fn make(&self) -> io::Result<()> {
        match (make_directory(&self.path), self.path.parent()) {
            (Err(error), Some(ours)) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(ours)?;
                if let (Version::V2, Some(base)) = (self.version, ours.parent()) {
                    let controllers: Vec<Controller> = self.controllers.iter().copied().collect();
                    enable(base, &controllers, ours);
                    enable(ours, &controllers, ours);
                }
                make_directory(&self.path)
            }
            (outcome, _) => outcome,
        }
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::OpenOptions::new()
            .write(true)
            .open(self.path.join(file))
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
    }

    fn limit(&self, bounds: Bounds) -> io::Result<()> {
        // Cores come from a checked profile; the clamp only keeps the cast and the kernel's minimum honest.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped just before")]
        let quota = (bounds.cpus.clamp(0.01, 4096.0) * CPU_PERIOD_US as f64) as u64;
        for controller in &self.controllers {
            match (self.version, controller) {
                (Version::V1, Controller::Memory) => {
                    let bytes = bounds.memory.to_string();
                    self.write("memory.limit_in_bytes", &bytes)?;
                    // Memory and swap together; the file is absent where the kernel does not account swap.
                    let _ = self.write("memory.memsw.limit_in_bytes", &bytes);
                }
                (Version::V2, Controller::Memory) => {
                    self.write("memory.max", &bounds.memory.to_string())?;
                    let _ = self.write("memory.swap.max", "0");
                }
                (_, Controller::Pids) => self.write("pids.max", &bounds.pids.to_string())?,
                (Version::V1, Controller::Cpu) => {
                    self.write("cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                    self.write("cpu.cfs_quota_us", &quota.to_string())?;
                }
                (Version::V2, Controller::Cpu) => {
                    self.write("cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
                }
            }
        }
        Ok(())
    }

    fn processes(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// Moves a process into every group. The first move waits for the kernel's own grace period (about 10 ms).
pub(super) fn join(groups: &[Group], pid: u32) -> io::Result<()> {
    for group in groups {
        group
            .write("cgroup.procs", &pid.to_string())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", group.path.display())))?;
    }
    Ok(())
}

/// How often the kernel killed a process of these groups for want of memory.
pub(super) fn oom_kills(groups: &[Group]) -> u64 {
    let mut count = 0;
    for group in groups.iter().filter(|group| group.controllers.contains(&Controller::Memory)) {
        let file = match group.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = fs::read_to_string(group.path.join(file)).unwrap_or_default();
        count += (text.lines())
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .filter_map(|number| number.trim().parse::<u64>().ok())
            .sum::<u64>();
    }
    count
}

/// Kills whatever is left in the groups. Forking faster than it looks does not help: it looks until none is left.
pub(super) fn kill(groups: &[Group], limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let mut left = false;
        for group in groups {
            let processes = group.processes();
            if processes.is_empty() {
                continue;
            }
            left = true;
            if group.version == Version::V2 && group.write("cgroup.kill", "1").is_ok() {
                continue;
            }
            for pid in processes {
                kill_member(group, pid)?;
            }
        }
        if !left {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        pause();
    }
}

/// Kills one process, if it is still in the group once its descriptor pins it.
fn kill_member(group: &Group, pid: i32) -> io::Result<()> {
    let Some(start) = identity::start_time(pid)? else { return Ok(()) };
    let Some(pidfd) = (ProcessId { pid, start }).open()? else { return Ok(()) };
    if group.processes().contains(&pid) { identity::signal(&pidfd, Signal::KILL) } else { Ok(()) }
}

/// Removes the directories. The last process leaves its group a moment after it ended, hence the limit.
pub(super) fn remove(groups: &[Group], limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    for group in groups {
        loop {
            match fs::remove_dir(&group.path) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    pause()
                }
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("{}: {error}", group.path.display())));
                }
            }
        }
    }
    Ok(())
}

/// A breath between two looks at something that has no descriptor to wait on.
fn pause() {
    let nothing: &mut [rustix::event::PollFd<'_>] = &mut [];
    let _ = rustix::event::poll(nothing, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 }));
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

fn parse_mounts(mountinfo: &str) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(root), Some(point), Some(kind)) = (left.get(3), left.get(4), right.first()) else {
            continue;
        };
        let version = match *kind {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => continue,
        };
        let options = right.get(2).map_or_else(Vec::new, |list| list.split(',').map(str::to_owned).collect());
        mounts.push(Mount { root: unescape(root), point: unescape(point), version, options });
    }
    mounts
}

/// Mount tables write blanks as octal.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
}

/// This process's path in the hierarchy of `mount`.
fn own_path(own: &str, mount: &Mount) -> Option<PathBuf> {
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let ours = match mount.version {
            Version::V2 => number == "0" && controllers.is_empty(),
            Version::V1 => {
                controllers.split(',').any(|name| mount.options.iter().any(|option| option == name))
            }
        };
        if ours {
            return Some(PathBuf::from(path));
        }
    }
    None
}

fn v1_parent(mount: &Mount, relative: &Path, name: &str) -> Option<Parent> {
    let controllers: BTreeSet<Controller> = Controller::ALL
        .into_iter()
        .filter(|c| mount.options.iter().any(|option| option == c.name()))
        .collect();
    if controllers.is_empty() {
        return None;
    }
    let path = mount.point.join(relative).join(name);
    make_directory(&path).ok()?;
    // One look is enough to know whether containers' groups can be made: ours was, and we own it.
    Some(Parent { path, version: Version::V1, controllers })
}

fn v2_parent(mount: &Mount, relative: &Path, name: &str, privileged: bool) -> Option<Parent> {
    let own = mount.point.join(relative);
    // The true root has no `cgroup.type` and no rule against processes beside children.
    let at_root = privileged && !mount.point.join("cgroup.type").exists();
    let base = if at_root { mount.point.clone() } else { own };
    let available = words(&base.join("cgroup.controllers"));
    let wanted: Vec<Controller> =
        Controller::ALL.into_iter().filter(|c| available.iter().any(|name| name == c.name())).collect();
    let path = base.join(name);
    make_directory(&path).ok()?;
    enable(&base, &wanted, &path);
    enable(&path, &wanted, &path);
    let enabled = words(&path.join("cgroup.subtree_control"));
    let controllers: BTreeSet<Controller> =
        wanted.into_iter().filter(|c| enabled.iter().any(|name| name == c.name())).collect();
    // With no controller the unified hierarchy still finds and kills leftovers, when we may move processes into it.
    if controllers.is_empty() && !privileged {
        let _ = fs::remove_dir(&path);
        return None;
    }
    Some(Parent { path, version: Version::V2, controllers })
}

/// Lets children of `base` use these controllers. When `base` has processes of its own the kernel refuses; then
/// Bay moves itself to a leaf and tries once more, and back when that did not help.
fn enable(base: &Path, controllers: &[Controller], ours: &Path) {
    let write = || {
        for controller in controllers {
            fs::write(base.join("cgroup.subtree_control"), format!("+{}", controller.name()))?;
        }
        Ok::<(), io::Error>(())
    };
    let Err(error) = write() else { return };
    if error.kind() != io::ErrorKind::ResourceBusy || base == ours {
        return;
    }
    let leaf = base.join("bay-host");
    let pid = std::process::id().to_string();
    if make_directory(&leaf).is_err() || fs::write(leaf.join("cgroup.procs"), &pid).is_err() {
        return;
    }
    if write().is_err() && fs::write(base.join("cgroup.procs"), &pid).is_ok() {
        let _ = fs::remove_dir(&leaf);
    }
}

fn words(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
