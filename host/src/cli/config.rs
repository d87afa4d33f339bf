//! `bay config`: looks a configuration over without starting anything.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::{Config, Flags, environment};

/// What can be typed after `bay config`.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check bay.toml and the BAY_ variables as `bay serve` would read them.
    Check(CheckArgs),
}

/// What can be typed after `bay config check`.
#[derive(Debug, Clone, Args)]
pub(super) struct CheckArgs {
    /// Configuration file; none: every default, and the environment over them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs one command; what is wrong is its error.
pub(super) fn run(command: &ConfigCommand) -> anyhow::Result<()> {
    let ConfigCommand::Check(args) = command;
    Config::load(args.config.as_deref(), environment(), &Flags::default())?;
    let what = args.config.as_ref().map_or_else(|| "the environment".into(), |path| path.to_string_lossy());
    writeln!(std::io::stdout(), "{what}: good")?;
    Ok(())
}
