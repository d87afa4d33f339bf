//! The command line.

mod admin_client;
mod config;
mod key;
mod profile;
mod python;
mod quickstart;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::driver::local::launch_main;

/// Safe, persistent sandboxes for AI agents.
#[derive(Debug, Parser)]
#[command(name = "bay", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the REST API; works with no configuration at all.
    Serve(serve::ServeArgs),
    /// Start Bay and show what it does, request by request.
    Quickstart(quickstart::QuickstartArgs),
    /// Make, list and revoke API keys, whether or not Bay runs.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Look a configuration over.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Look profiles and tenants over.
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Manage the Python of the local driver's sandboxes.
    #[command(subcommand)]
    Python(python::PythonCommand),
    /// The local driver's own: starts one sandbox.
    #[command(hide = true)]
    Launch,
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        // Alone in its process and single-threaded: it changes user, namespaces and cgroups.
        Command::Launch => return launch_main(),
        Command::Serve(args) => with_runtime(serve::run(args)),
        Command::Quickstart(args) => with_runtime(quickstart::run(args)),
        Command::Key(command) => with_runtime(key::run(command)),
        Command::Config(command) => config::run(&command),
        Command::Profile(command) => with_runtime(profile::run(command)),
        Command::Python(command) => python::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            // Nobody is left to tell when stderr is gone.
            let _unheard = writeln!(std::io::stderr(), "bay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn with_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
