//! A Docker engine for the tests: started for them, apart from any other on this machine, and gone after them.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::images::Docker;
use crate::privilege::Root;
use crate::run;

/// Runs as the first process of the engine's namespaces.
const SCRIPT: &str = include_str!("engine.sh");

/// Keeps the network namespace of the machine open for the way out, and leaves it.
const OUTSIDE: &str = "exec 8</proc/self/ns/net; \
     exec unshare --mount --propagation=private --pid --net --fork --kill-child -- bash -c \"$@\"";

/// What an engine has of its own, by kind and name.
pub(crate) type Holdings = BTreeSet<String>;

/// The engine. It ends with this, and it ends when this process does.
pub(crate) struct Engine {
    root: Root,
    folder: PathBuf,
    script: Child,
    /// The first process of its namespaces.
    pid: String,
    docker: Docker,
}

impl Engine {
    /// Starts it and waits until it answers, a minute at most.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let root = Root::find();
        let Some(mut command) = root.command("bash") else {
            bail!("a Docker engine needs root, and sudo asks for a password; `--suite user` needs none")
        };
        let folder = std::env::temp_dir().join(format!("bay-engine-{}", std::process::id()));
        // Fails where somebody has made it before us.
        std::fs::DirBuilder::new().mode(0o755).create(&folder).context("cannot make the engine's folder")?;
        let group = std::fs::metadata("/proc/self")?.gid().to_string();
        command.args(["-c", OUTSIDE, "engine", SCRIPT, "engine"]).arg(&folder).arg(&group);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Who ends this process by its group gets an orderly end of the engine: its input closes.
        let mut script = command.process_group(0).spawn().context("cannot start the engine")?;
        let mut pid = String::new();
        BufReader::new(script.stdout.take().context("no pipe to read")?).read_line(&mut pid)?;
        let docker = Docker::of_tests(format!("unix://{}", folder.join("docker.sock").display()));
        let engine = Self { root, folder, script, pid: pid.trim().to_owned(), docker };
        // It bounds its start by itself, and says its number once it answers.
        ensure!(!engine.pid.is_empty(), "the engine did not start:\n{}", engine.log());
        Ok(engine)
    }

    /// The end of what it says, for whoever wonders why it does not work.
    fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let log = [read("pasta.log"), read("log")].concat();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// What speaks to it.
    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Its address, as in `DOCKER_HOST`.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    /// A folder for what runs beside it, gone with it.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A command as root beside the engine: containers are at their addresses there, and published ports on loopback.
    pub(crate) fn command(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = self.root.command("nsenter").context("not root any more")?;
        command.args(["--target", &self.pid, "--mount", "--pid", "--net", "--", program]);
        Ok(command)
    }

    /// Every container, volume and network.
    pub(crate) fn holdings(&self) -> anyhow::Result<Holdings> {
        let mut all = Holdings::new();
        for (kind, words) in [
            ("container", &["ps", "--all", "--no-trunc", "--format", "{{.Names}} ({{.Status}})"][..]),
            ("volume", &["volume", "ls", "--format", "{{.Name}}"]),
            ("network", &["network", "ls", "--format", "{{.Name}}"]),
        ] {
            let listed = run::output(self.docker.command().args(words))?;
            all.extend(listed.lines().map(|name| format!("{kind} {name}")));
        }
        Ok(all)
    }

    /// Fails with what is there now and was not, or was and is not.
    pub(crate) fn unchanged_since(&self, before: &Holdings) -> anyhow::Result<()> {
        // What Bay keeps on an engine for the next sandbox, on purpose. An engine refuses while anything uses it.
        for volume in self.holdings()?.iter().filter_map(|name| name.strip_prefix("volume bay-ship-")) {
            run::checked(self.docker.command().args(["volume", "rm", &format!("bay-ship-{volume}")]))?;
        }
        let now = self.holdings()?;
        let left: Vec<&String> = now.difference(before).collect();
        let gone: Vec<&String> = before.difference(&now).collect();
        ensure!(left.is_empty() && gone.is_empty(), "left behind: {left:?}; gone: {gone:?}");
        Ok(())
    }

    /// Stops it and removes what it kept; fails when something of it stays.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        // The end of its input is what it waits for. It bounds what comes then by itself.
        drop(self.script.stdin.take());
        let ended = self.script.wait()?;
        let mut remove = self.root.command("rm").context("not root any more")?;
        run::checked(remove.args(["-rf", "--one-file-system", "--"]).arg(&self.folder))?;
        ensure!(ended.success(), "the engine ended with {ended}");
        ensure!(!self.folder.exists(), "{} stays", self.folder.display());
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("engine: {error:#}");
        }
    }
}
