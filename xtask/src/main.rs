//! Every chore of the project: `cargo xtask CHORE`, the same by hand and in CI.
//!
//! | module | chore |
//! |---|---|
//! | `setup` | install what is missing |
//! | `quickstart` | set up, build, hand over to `bay quickstart` |
//! | `images` | the images that sandboxes run in |
//! | `check` | formatting, lints, bans, house rules, all tests: as root, as a normal user, in containers |
//! | `bench` | the measured promises |
//! | `soak` | the tests again and again, with bigger random cases |
//! | `fuzz` | libFuzzer on what reads hostile bytes |

#![expect(clippy::print_stdout, reason = "a chore talks to the person who typed it")]

mod args;
mod bench;
mod check;
mod engine;
mod fuzz;
mod images;
mod privilege;
mod python;
mod quickstart;
mod rules;
mod run;
mod setup;
mod soak;
mod suite;
mod workspace;

use std::process::ExitCode;

use args::Chore;

fn main() -> ExitCode {
    match chore() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chore() -> anyhow::Result<()> {
    match args::parse(lexopt::Parser::from_env())? {
        Chore::Help => {
            print!("{}", args::HELP);
            Ok(())
        }
        Chore::Setup => setup::setup(setup::For::Running),
        Chore::Quickstart(options) => quickstart::quickstart(&options),
        Chore::Images(options) => images::images(&options),
        Chore::Test(options) => check::check(&options),
        Chore::Rules => rules::check(),
        Chore::Ci => run::checked(run::command("bash").arg(".ci/run")),
        Chore::Bench(options) => bench::bench(&options),
        Chore::Soak(options) => soak::soak(&options),
        Chore::Fuzz(options) => fuzz::fuzz(&options),
    }
}
