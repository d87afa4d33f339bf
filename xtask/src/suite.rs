//! All tests, compiled once and run as whoever they should run as.
//!
//! Compiling is done by the person who typed the command, running by nextest from what was compiled, so that a
//! test user needs neither cargo nor a writable target directory, and nothing root-owned is left in one.
//!
//! Sandboxes outlive the Bay that made them, by design. So the tests run in a PID namespace where that is
//! possible: when the suite ends, the kernel ends whatever a failed test left behind.

use std::fmt;
use std::ops::AddAssign;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::engine::Engine;
use crate::privilege::{Root, is_root};
use crate::{python, run, setup, workspace};

/// The user that tests run as when root runs them as a normal user.
const TEST_USER: &str = "bay-test";

/// Makes the build visible to the test user and becomes that user.
const AS_USER: &str = include_str!("as_user.sh");

/// Not exec: the shell is the first process of its namespace and buries orphans.
const AS_ROOT: &str = r#"env "$@"; exit $?"#;

/// How many tests ran, from nextest's own summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What a run of the suite ended with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) count: Count,
}

/// Compiled tests.
pub(crate) struct Built {
    target: PathBuf,
    nextest: PathBuf,
    /// What cargo and nextest say of what was compiled; readable by everyone.
    folder: PathBuf,
    bay: PathBuf,
    python: PathBuf,
    tools: PathBuf,
}

impl Built {
    /// Compiles every test and the `bay` that the black-box tests start.
    pub(crate) fn build() -> anyhow::Result<Self> {
        let target = workspace::target_dir()?;
        let folder = target.join("xtask");
        std::fs::create_dir_all(&folder)?;
        let bay = workspace::build_bay("dev")?;
        let python = python::for_tests(&bay)?;
        let tools = python::contract_tools()?;
        let binaries = run::output(run::cargo().args([
            "nextest",
            "list",
            "--locked",
            "--workspace",
            "--list-type=binaries-only",
            "--message-format=json",
        ]))?;
        std::fs::write(folder.join("binaries.json"), binaries)?;
        let metadata = run::output(run::cargo().args(["metadata", "--locked", "--format-version=1"]))?;
        std::fs::write(folder.join("metadata.json"), metadata)?;
        // A copy, because the test user cannot look into somebody's `.cargo`.
        let nextest = folder.join("cargo-nextest");
        std::fs::copy(find_nextest()?, &nextest)?;
        Ok(Self { target, nextest, folder, bay, python, tools })
    }

    /// Runs the suite as whoever we are.
    pub(crate) fn run_here(&self, filter: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Ran> {
        let command = if is_root() { contained(Root::Already, AS_ROOT)? } else { run::command("env") };
        self.finish(command, filter, environment)
    }

    /// Runs the suite as root.
    pub(crate) fn run_as_root(&self, filter: &[&str]) -> anyhow::Result<Ran> {
        self.finish(contained(Root::find(), AS_ROOT)?, filter, &[])
    }

    /// Runs the suite as a normal user: ourselves, or the test user when we are root.
    pub(crate) fn run_as_user(&self, filter: &[&str]) -> anyhow::Result<Ran> {
        if !is_root() {
            return self.run_here(filter, &[]);
        }
        make_test_user()?;
        let mut command = contained(Root::Already, AS_USER)?;
        command
            .arg(TEST_USER)
            .arg(workspace::root())
            .args([&self.target, &self.python, &self.tools])
            .arg("--");
        self.finish(command, filter, &[])
    }

    /// Runs the suite that is for containers, beside an engine, as root.
    pub(crate) fn run_beside(&self, engine: &Engine, connect: &str, filter: &[&str]) -> anyhow::Result<Ran> {
        let mut command = engine.command("bash")?;
        command.args(["-c", AS_ROOT, "suite"]);
        let address = engine.address();
        let environment = [
            ("BAY_TEST_DRIVER", "docker"),
            ("BAY_TEST_CONNECT", connect),
            ("BAY_TEST_DOCKER_HOST", &address),
            ("BAY_TEST_IMAGE", "bay/ship:slim"),
            // Not the one of whoever typed the command, should a test look there.
            ("DOCKER_HOST", &address),
        ];
        self.finish(command, &[&["--profile", "docker"], filter].concat(), &environment)
    }

    /// Runs `bay quickstart` with containers, beside an engine.
    pub(crate) fn quickstart_beside(&self, engine: &Engine) -> anyhow::Result<()> {
        let mut command = engine.command("env")?;
        command.arg(format!("DOCKER_HOST={}", engine.address())).arg(&self.bay);
        command.args(["quickstart", "--once", "--driver", "docker", "--data-dir"]);
        run::checked(command.arg(engine.scratch("quickstart")))
    }

    /// `command` takes `NAME=VALUE…` and then a command line, as `env` does.
    fn finish(
        &self,
        mut command: Command,
        filter: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Ran> {
        command.arg(format!("BAY_TEST_BIN={}", self.bay.display()));
        command.arg(format!("BAY_TEST_PYTHON={}", self.python.display()));
        command.arg(format!("BAY_TEST_CONTRACT_TOOLS={}", self.tools.display()));
        command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(&self.nextest).args(["nextest", "run", "--no-fail-fast"]);
        command.arg("--workspace-remap").arg(workspace::root());
        command.arg("--target-dir-remap").arg(&self.target);
        command.arg("--binaries-metadata").arg(self.folder.join("binaries.json"));
        command.arg("--cargo-metadata").arg(self.folder.join("metadata.json"));
        command.args(filter);
        let mut count = None;
        let ok = run::watched(&mut command, |line| count = summary(line).or(count))?;
        let count = count.context("nextest printed no summary: nothing ran")?;
        ensure!(count.passed + count.failed > 0, "no test matched");
        Ok(Ran { ok: ok && count.failed == 0, count })
    }
}

/// The start of a command line that `script` finishes, run as root in namespaces that end with it.
pub(crate) fn contained(root: Root, script: &str) -> anyhow::Result<Command> {
    let Some(mut command) = root.command("unshare") else {
        bail!("needs root, and sudo asks for a password; `--suite user` leaves this half out")
    };
    command.args([
        "--mount",
        "--propagation=private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ]);
    command.args(["bash", "-c", script, "suite"]);
    Ok(command)
}

fn find_nextest() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.map(|home| home.join("bin"))
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("cargo-nextest"))
        .find(|candidate| candidate.is_file())
        .context("cargo-nextest is not on the path")
}

fn make_test_user() -> anyhow::Result<()> {
    ensure!(setup::on_path("useradd"), "useradd is missing: install the package `passwd`");
    if run::succeeds(run::command("id").arg(TEST_USER)) {
        return Ok(());
    }
    run::checked(run::command("useradd").args([
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir=/nonexistent",
        "--shell=/bin/bash",
        TEST_USER,
    ]))
}

/// Reads nextest's last line: `Summary [ 1.2s] 10 tests run: 9 passed (1 slow), 1 failed, 2 skipped`.
fn summary(line: &str) -> Option<Count> {
    let plain = without_colours(line);
    let (_, counts) = plain.trim().strip_prefix("Summary")?.split_once("run:")?;
    let mut count = Count::default();
    for part in counts.split(", ") {
        let Some((number, label)) = part.trim().split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match label.split(' ').next() {
            Some("passed") => count.passed += number,
            Some("skipped") => count.skipped += number,
            // `failed`, `exec failed`, `timed out`, and whatever a later nextest invents: not passed.
            _ => count.failed += number,
        }
    }
    Some(count)
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            characters.by_ref().find(|c| c.is_ascii_alphabetic());
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_nextest_is_read() {
        let line = "\u{1b}[31;1m     Summary\u{1b}[0m [   1.234s] \u{1b}[1m12\u{1b}[0m tests run: 9 passed (2 slow), 2 failed, 1 timed out, 4 skipped";
        assert_eq!(summary(line), Some(Count { passed: 9, failed: 3, skipped: 4 }));
        assert_eq!(summary("     PASS [   0.1s] x run: 9 passed"), None);
        assert_eq!(
            summary("     Summary [   0.011s] 3 tests run: 3 passed, 0 skipped"),
            Some(Count { passed: 3, failed: 0, skipped: 0 })
        );
    }
}
