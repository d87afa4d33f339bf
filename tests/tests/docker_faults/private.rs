//! An engine of a test's own, which it may stop. It lives in a network namespace of its own, so that its bridges and
//! packet filter disturb nobody; Bay reaches its containers over sockets in the file system.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bay_tests::driver::image;
use bay_tests::{Engine, soon, until};
use serde_json::Value;
use tempfile::TempDir;

/// From its start to the first answer.
const START: Duration = Duration::from_secs(60);
/// From SIGTERM to its end: it stops its containers first.
const STOP: Duration = Duration::from_secs(40);
/// From the end of the last process to that of its control group.
const SWEEP: Duration = Duration::from_secs(10);

/// A directory, and the engine on it while it runs.
pub(crate) struct Private {
    dir: TempDir,
    process: Option<Child>,
    live_restore: bool,
}

impl Private {
    /// Not started. `live_restore`: its containers run on when it stops.
    pub(crate) fn new(live_restore: bool) -> Self {
        // Not within a test's home: what is mounted there would look like a sandbox's. Beside the engine that
        // `cargo xtask test` starts where there is one: what a killed test leaves goes with that.
        let host = Engine::host();
        let beside = Path::new(host.strip_prefix("unix://").unwrap_or_default()).parent();
        let named = beside.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let of_suite = named.is_some_and(|name| name.starts_with("bay-engine-"));
        let parent = beside.filter(|_| of_suite).map_or_else(std::env::temp_dir, Path::to_owned);
        let dir = tempfile::Builder::new().prefix("bay-daemon-").tempdir_in(parent);
        let dir = dir.expect("a temporary directory");
        Self { dir, process: None, live_restore }
    }

    /// Its address, whether it runs or not.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::at(&self.host())
    }

    /// What the groups of its containers are in.
    fn cgroup(&self) -> String {
        format!("/{}", self.dir.path().file_name().expect("a name").to_string_lossy())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.path("log")).expect("open its log");
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "sh", "-c", r#"ip link set lo up && exec dockerd "$@""#, "dockerd"]);
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(self.path(name));
        }
        command.args(["--host", &self.host()]);
        // Not systemd's, which would be asked for slices on a machine that has it, and apart from other engines'.
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &self.cgroup()]);
        if self.live_restore {
            command.arg("--live-restore");
        }
        // A configuration of the machine's own engine is not for this one.
        std::fs::write(self.path("daemon.json"), "{}").expect("write its configuration");
        command.arg("--config-file").arg(self.path("daemon.json"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let mut child = command.spawn().expect("start dockerd");
        let engine = self.engine();
        until("the engine answers", START, || {
            let ended = child.try_wait().expect("look at dockerd");
            assert!(ended.is_none(), "dockerd ended ({ended:?}):\n{}", self.log_tail());
            engine.answers().then_some(())
        });
        self.process = Some(child);
    }

    /// Has the tests' image, copied from the tests' engine.
    pub(crate) fn load_image(&self) {
        let name = bay_tests::http::encode(&image());
        let saved = Engine::of_tests().ask("GET", &format!("/images/{name}/get"), None);
        let saved = saved.expect("save the image").body;
        let loaded = self.engine().ask("POST", "/images/load", Some(("application/x-tar", saved)));
        let loaded = loaded.expect("load the image");
        assert_eq!(loaded.status, 200, "{}", loaded.brief());
        self.engine().get(&format!("/images/{name}/json"));
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(&mut self) {
        assert!(self.ended(), "dockerd did not end within {STOP:?}:\n{}", self.log_tail());
    }

    /// Whether it ended when it was told to; otherwise it was killed.
    fn ended(&mut self) -> bool {
        let Some(mut child) = self.process.take() else { return true };
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let ended = soon(STOP, || matches!(child.try_wait(), Ok(Some(_))));
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
        }
        ended
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if self.live_restore && self.process.is_some() {
            // Those that it leaves running nobody else would end. (An engine that does not answer has its processes
            // killed below; a panic here would keep the rest from being cleaned up.)
            let all = self.engine().ask("GET", "/containers/json?all=true", None);
            let all = all.ok().and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
            let all = all.unwrap_or_default();
            for container in all.as_array().into_iter().flatten() {
                let id = container["Id"].as_str().unwrap_or_default();
                let _ = self.engine().ask("DELETE", &format!("/containers/{id}?force=true&v=true"), None);
            }
        }
        let ended = self.ended();
        // What serves containers is started by the engine's containerd and outlives both when something went wrong.
        let own = self.dir.path().to_string_lossy().into_owned();
        for process in bay_tests::procs::all().values().filter(|p| p.cmdline.contains(&own)) {
            process.kill();
        }
        for mount in mounts_beneath(self.dir.path()) {
            let _ = Command::new("umount").arg("--lazy").arg(mount).status();
        }
        // Groups go when the last process in them has.
        let swept = soon(SWEEP, || groups_removed(&self.cgroup()));
        if !ended || !swept {
            eprintln!("dockerd ended: {ended}, its groups: {swept}\n{}", self.log_tail());
        }
    }
}

/// Removes the control groups in whose path this is, in whatever hierarchy. True when none is left.
fn groups_removed(name: &str) -> bool {
    let mut command = Command::new("find");
    command.args(["/sys/fs/cgroup", "-ignore_readdir_race", "-depth", "-type", "d", "-path"]);
    command.arg(format!("*{name}*")).args(["-exec", "rmdir", "--", "{}", "+"]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Deepest first.
fn mounts_beneath(dir: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .filter(|path| path.starts_with(dir))
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}
