//! `cargo xtask test`: everything that must hold before a change lands.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::args::{Suite, Test};
use crate::engine::{Engine, Holdings};
use crate::privilege::is_root;
use crate::suite::{Built, Count, Ran};
use crate::{images, rules, run, setup, workspace};

/// What a normal user runs again: the parts whose behaviour depends on who runs them.
/// Not those of TCP: only as root does the agent have a uid of its own, by which it knows its connections.
const USER_FILTER: &str = "package(bay-tests) + (package(bay) & test(/local/)) + package(bay-ship) + \
     (package(bay-ship-tests) - test(/over_tcp|tcp_connections_belong/))";

/// How Bay can reach the runtime in a container: what people read, what the tests are told.
const CONNECTS: [(&str, &str); 3] = [
    ("tests in containers, by socket", "socket"),
    ("tests in containers, by published port", "host_port"),
    ("tests in containers, by address", "container_network"),
];

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
    let containers = matches!(options.suite, Suite::All | Suite::Docker);
    setup::setup(if containers { setup::For::TestingContainers } else { setup::For::Testing })?;
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
    if matches!(options.suite, Suite::All | Suite::User) {
        let again = ["-E", USER_FILTER];
        // Who is not root and asks for this part only gets all of it.
        let everything = options.suite == Suite::User && !is_root();
        let filter = if filter.is_empty() && !everything { &again[..] } else { &filter[..] };
        report.suite("tests as a normal user", || built.context(not_compiled)?.run_as_user(filter));
    }
    if matches!(options.suite, Suite::All | Suite::Docker) {
        containers(report, built, &filter);
    }
    let left_out = match options.suite {
        Suite::All => return,
        Suite::Root => "the tests as a normal user and in containers (--suite root)",
        Suite::User => "the tests as root and in containers (--suite user)",
        Suite::Docker => "the tests as root and as a normal user (--suite docker)",
    };
    println!("\nNOT RUN: {left_out}");
}

/// The suite on a Docker engine, once for each way to reach what is in a container.
fn containers(report: &mut Report, built: Option<&Built>, filter: &[&str]) {
    let mut started: Option<(Engine, Holdings)> = None;
    report.step("a Docker engine and its images", || {
        let engine = Engine::start()?;
        images::make(engine.docker(), &images::Options::for_tests())?;
        let before = engine.holdings()?;
        started = Some((engine, before));
        Ok(())
    });
    let not_compiled = "the tests did not compile";
    let no_engine = "there is no engine";
    for (name, connect) in CONNECTS {
        report.suite(name, || {
            let (engine, _) = started.as_ref().context(no_engine)?;
            built.context(not_compiled)?.run_beside(engine, connect, filter)
        });
    }
    // A part of the suite that somebody asked for has no front door.
    if filter.is_empty() {
        report.step("quickstart in containers", || {
            built.context(not_compiled)?.quickstart_beside(&started.as_ref().context(no_engine)?.0)
        });
    }
    report.step("the engine is left as it was", || {
        let (engine, before) = started.take().context(no_engine)?;
        let unchanged = engine.unchanged_since(&before);
        let stopped = engine.stop();
        unchanged.and(stopped)
    });
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
