//! `cargo xtask soak`: the tests again and again, to find what fails once in a hundred; `soak ship`: Ship under load
//! while whatever it consists of is killed at random; `soak kills`: the same of Bay.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::suite::{Built, Count};
use crate::{args, python, run, setup, workspace};

/// Random cases a property, where a plain test run takes some hundreds.
const CASES: &str = "4096";

/// Soaks what was asked for; stops at the first failure.
pub(crate) fn soak(options: &args::Soak) -> anyhow::Result<()> {
    match options.what {
        args::Soaked::Suite(minutes) => suite(minutes),
        args::Soaked::Ship(minutes) => ship(minutes, options.seed),
        args::Soaked::Kills(kills) => bay(kills, options.seed),
    }
}

/// Repeats the suite until the time is over; says in which round one failed.
fn suite(minutes: u64) -> anyhow::Result<()> {
    setup::setup(setup::For::Testing)?;
    let built = Built::build()?;
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let mut total = Count::default();
    let mut round = 0;
    while round == 0 || Instant::now() < end {
        round += 1;
        println!("soak: round {round}");
        let ran = built.run_here(&[], &[("PROPTEST_CASES", CASES)])?;
        total += ran.count;
        if !ran.ok {
            bail!("round {round} failed; {total}");
        }
    }
    println!("soak: {round} rounds\n{total}");
    Ok(())
}

/// One long run of Ship's chaos test; it prints its seed.
fn ship(minutes: u64, seed: Option<u64>) -> anyhow::Result<()> {
    setup::setup(setup::For::Running)?;
    let ship = workspace::build_ship()?;
    let mut command = run::cargo();
    command.args(["test", "--locked", "--package", "bay-ship-tests", "--test", "chaos", "--", "--nocapture"]);
    command.env("BAY_TEST_SHIP", &ship).env("BAY_TEST_PYTHON", python::at_hand()?);
    command.env("BAY_TEST_SECONDS", (minutes * 60).to_string());
    seeded(&mut command, seed)
}

/// One long run of the test that kills Bay; it prints its seed.
fn bay(kills: u64, seed: Option<u64>) -> anyhow::Result<()> {
    setup::setup(setup::For::Running)?;
    let bay = workspace::build_bay("dev")?;
    let mut command = run::cargo();
    command.args([
        "test",
        "--locked",
        "--package",
        "bay-tests",
        "--test",
        "faults",
        "--",
        "--nocapture",
        "kills::",
    ]);
    command.env("BAY_TEST_BIN", &bay).env("BAY_TEST_PYTHON", python::at_hand()?);
    command.env("BAY_TEST_ROUNDS", kills.to_string());
    seeded(&mut command, seed)
}

fn seeded(command: &mut Command, seed: Option<u64>) -> anyhow::Result<()> {
    if let Some(seed) = seed {
        command.env("BAY_TEST_SEED", seed.to_string());
    }
    run::checked(command)
}
