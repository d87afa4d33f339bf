//! `cargo xtask test`: everything that must hold before a change lands.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::args::{Suite, Test};
use crate::privilege::is_root;
use crate::suite::{Built, Count, Ran};
use crate::{rules, run, setup, workspace};

/// What a normal user runs again: the parts whose behaviour depends on who runs them.
const USER_FILTER: &str =
    "package(bay-tests) + (package(bay) & test(/local/)) + package(bay-ship) + package(bay-ship-tests)";

/// One step of the check and how it went.
struct Step {
    name: &'static str,
    took: Duration,
    error: Option<String>,
}

#[derive(Default)]
struct Report {
    steps: Vec<Step>,
    count: Count,
}

impl Report {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<()>) {
        println!("\n=== {name}");
        let began = Instant::now();
        let error = work().err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            println!("=== {name}: FAILED: {error}");
        }
        self.steps.push(Step { name, took: began.elapsed(), error });
    }

    fn suite(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<Ran>) {
        let mut count = Count::default();
        self.step(name, || {
            let ran = work()?;
            count = ran.count;
            if !ran.ok {
                bail!("{count}");
            }
            Ok(())
        });
        self.count += count;
    }

    fn finish(&self) -> anyhow::Result<()> {
        println!("\n=== what was checked");
        for step in &self.steps {
            let verdict = if step.error.is_some() { "FAILED" } else { "ok" };
            println!("{verdict:>6}  {:>7.1} s  {}", step.took.as_secs_f64(), step.name);
        }
        let failed: Vec<&str> =
            self.steps.iter().filter(|step| step.error.is_some()).map(|step| step.name).collect();
        println!();
        if !failed.is_empty() {
            // Before the count, so that the count stays the closing line.
            println!("FAILED: {}", failed.join("; "));
        }
        println!("{}", self.count);
        if failed.is_empty() {
            Ok(())
        } else {
            bail!("{} of {} steps failed", failed.len(), self.steps.len())
        }
    }
}

/// Checks everything, goes on after a failed step, and fails if any did.
pub(crate) fn check(options: &Test) -> anyhow::Result<()> {
    setup::setup(setup::For::Testing)?;
    let mut report = Report::default();
    report.step("formatting", formatting);
    report.step("house rules", rules::check);
    report.step("lints", || run::checked(&mut clippy(&["--workspace"])));
    report.step("lints of the components", component_lints);
    report.step("bans, licences, sources", bans);
    let mut built = None;
    report.step("compile the tests", || {
        built = Some(Built::build()?);
        Ok(())
    });
    suites(&mut report, options, built.as_ref());
    report.finish()
}

fn suites(report: &mut Report, options: &Test, built: Option<&Built>) {
    let filter: Vec<&str> = options.filter.iter().map(String::as_str).collect();
    let not_compiled = "the tests did not compile";
    if matches!(options.suite, Suite::All | Suite::Root) {
        report.suite("tests as root", || built.context(not_compiled)?.run_as_root(&filter));
    }
    match options.suite {
        Suite::Root => println!("\nNOT RUN: the tests as a normal user (--suite root)"),
        Suite::All | Suite::User => {
            let again = ["-E", USER_FILTER];
            // Who is not root and asks for this half only gets all of it.
            let everything = options.suite == Suite::User && !is_root();
            let filter = if filter.is_empty() && !everything { &again[..] } else { &filter[..] };
            report.suite("tests as a normal user", || built.context(not_compiled)?.run_as_user(filter));
        }
    }
    if options.suite == Suite::User {
        println!("\nNOT RUN: the tests as root (--suite user)");
    }
}

fn formatting() -> anyhow::Result<()> {
    run::checked(run::cargo().args(["fmt", "--all", "--check"]))?;
    run::checked(run::cargo().args(["fmt", "--all", "--check", "--manifest-path=plugins/Cargo.toml"]))
}

fn clippy(what: &[&str]) -> std::process::Command {
    let mut command = run::cargo();
    command.arg("clippy").args(what).args(["--locked", "--all-targets", "--", "--deny=warnings"]);
    command
}

fn component_lints() -> anyhow::Result<()> {
    // A target directory of its own: components are built for another machine, and by `build.rs` at that.
    let target = workspace::target_dir()?.join("xtask").join("plugins");
    run::checked(
        clippy(&["--workspace", "--manifest-path=plugins/Cargo.toml"]).env("CARGO_TARGET_DIR", target),
    )
}

/// The checks of `deny.toml`. Advisories need the advisory database, which not every machine can fetch.
fn bans() -> anyhow::Result<()> {
    if !run::succeeds(run::cargo().args(["deny", "--version"])) {
        // Unoptimised: it runs for a second, and compiles in a third of the time.
        println!("cargo-deny is missing; building it once");
        run::checked(setup::tool_environment(run::cargo().args([
            "install",
            "--locked",
            "--debug",
            "cargo-deny",
        ])))?;
    }
    for manifest in ["Cargo.toml", "plugins/Cargo.toml"] {
        run::checked(run::cargo().args([
            "deny",
            "--locked",
            "--workspace",
            "--config=deny.toml",
            "--manifest-path",
            manifest,
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ]))?;
    }
    Ok(())
}
