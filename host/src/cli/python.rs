//! `bay python`: the Python of the local driver's sandboxes.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::{Config, Flags, environment};
use crate::driver::local::ensure_python;
use crate::instance::Instance;

/// What can be typed after `bay python`.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum PythonCommand {
    /// Make the virtual environment with ipykernel that sandboxes see, and print where it is.
    Install(InstallArgs),
}

/// What can be typed after `bay python install`.
#[derive(Debug, Clone, Args)]
pub(super) struct InstallArgs {
    /// Where Bay keeps its data; the usual place when not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Runs one command.
pub(super) fn run(command: &PythonCommand) -> anyhow::Result<()> {
    let PythonCommand::Install(args) = command;
    let flags = Flags { data_dir: args.data_dir.clone(), listen: None };
    let config = Config::load(None, environment(), &flags)?;
    let instance = Instance::open(&config.data_dir)?;
    let python = ensure_python(instance.data_dir())?;
    writeln!(std::io::stdout(), "{}", python.display())?;
    Ok(())
}
