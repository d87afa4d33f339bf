//! `bay key`: keys without a running Bay, which holds the lock on the data directory otherwise.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::app::create_key;
use crate::auth::{Scope, Tenant};
use crate::config::{Config, Flags, environment};
use crate::instance::Instance;
use crate::store::Store;

/// What can be typed after `bay key`.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key and print it; it is never shown again.
    Create(CreateArgs),
}

/// What can be typed after `bay key create`.
#[derive(Debug, Clone, Args)]
pub(super) struct CreateArgs {
    /// Whose key it is.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// What it may do beyond its tenant's sandboxes; may be given several times.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<ScopeArg>,
    /// What it is for.
    #[arg(long, default_value = "made on the command line")]
    name: String,
    /// Where Bay keeps its data; the usual place when not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeArg {
    Admin,
    Ops,
    #[value(name = "lockers:files")]
    LockersFiles,
}

/// Runs one command.
pub(super) async fn run(command: KeyCommand) -> anyhow::Result<()> {
    let KeyCommand::Create(args) = command;
    let tenant = Tenant::new(&args.tenant).ok_or_else(|| {
        anyhow::anyhow!("`{}` is not a tenant: 1-63 of a-z, 0-9, `_` and `-`, no sign first", args.tenant)
    })?;
    let flags = Flags { data_dir: args.data_dir, listen: None };
    let config = Config::load(None, environment(), &flags)?;
    let instance = Instance::open(&config.data_dir)?;
    let store = Store::open(instance.data_dir())?;
    let scopes = args.scopes.into_iter().map(|scope| match scope {
        ScopeArg::Admin => Scope::Admin,
        ScopeArg::Ops => Scope::Ops,
        ScopeArg::LockersFiles => Scope::LockersFiles,
    });
    let key = create_key(&store, &tenant, &args.name, scopes.collect()).await?;
    writeln!(std::io::stdout(), "{}", key.reveal())?;
    Ok(())
}
