//! `cargo xtask quickstart`: from a fresh clone to a running Bay.

use std::time::Instant;

use crate::{args, run, setup, workspace};

/// Sets up, builds, and hands over to `bay quickstart`, which starts Bay and shows what it does.
pub(crate) fn quickstart(options: &args::Quickstart) -> anyhow::Result<()> {
    setup::setup(setup::For::Running)?;
    println!(
        "quickstart: building Bay (the first time takes some minutes: it compiles a WebAssembly engine)"
    );
    let began = Instant::now();
    let bay = workspace::build_bay("quick")?;
    println!("quickstart: built in {:.0?}", began.elapsed());
    let mut command = run::command(&bay);
    run::checked(command.arg("quickstart").args(&options.pass_on))
}
