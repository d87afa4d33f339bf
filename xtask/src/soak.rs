//! `cargo xtask soak`: the tests again and again, to find what fails once in a hundred; `soak ship`: Ship under load
//! while whatever it consists of is killed at random.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::suite::{Built, Count};
use crate::{args, python, run, setup, workspace};

/// Random cases a property, where a plain test run takes some hundreds.
const CASES: &str = "4096";

/// Repeats the suite until the time is over; stops at the first failure and says in which round.
pub(crate) fn soak(options: &args::Soak) -> anyhow::Result<()> {
    if options.ship {
        return ship(options);
    }
    setup::setup(setup::For::Testing)?;
    let built = Built::build()?;
    let end = Instant::now() + Duration::from_secs(options.minutes * 60);
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
fn ship(options: &args::Soak) -> anyhow::Result<()> {
    setup::setup(setup::For::Running)?;
    let ship = workspace::build_ship()?;
    let mut command = run::cargo();
    command.args(["test", "--locked", "--package", "bay-ship-tests", "--test", "chaos", "--", "--nocapture"]);
    command.env("BAY_TEST_SHIP", &ship).env("BAY_TEST_PYTHON", python::at_hand()?);
    command.env("BAY_TEST_SECONDS", (options.minutes * 60).to_string());
    if let Some(seed) = options.seed {
        command.env("BAY_TEST_SEED", seed.to_string());
    }
    run::checked(&mut command)
}
