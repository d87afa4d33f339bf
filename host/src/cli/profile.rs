//! `bay profile`: looks profiles and tenants over without starting anything.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bay_plugin_host::PluginHost;
use clap::{Args, Subcommand};

use super::serve::host_options;
use crate::config::{Config, DriverKind, Flags, environment};
use crate::plugins::Plugins;
use crate::profile::{KnownPlugins, ProfileSet};

/// What can be typed after `bay profile`.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum ProfileCommand {
    /// Check profiles and tenants against the plugins there are, as `bay serve` and a reload would.
    Check(CheckArgs),
}

/// What can be typed after `bay profile check`.
#[derive(Debug, Clone, Args)]
pub(super) struct CheckArgs {
    /// A directory of profiles, or one profile's file; none: those of the configuration.
    path: Option<PathBuf>,
    /// Configuration file, for the plugins and the driver it names.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs one command; what is wrong is its error.
pub(super) async fn run(command: ProfileCommand) -> anyhow::Result<()> {
    let ProfileCommand::Check(args) = command;
    let config = Config::load(args.config.as_deref(), environment(), &Flags::default())?;
    let (host, _cache) = plugin_host(&config)?;
    let mut plugins = Plugins::load(&host, &config.plugins).await?;
    let needs_image = config.driver.kind == DriverKind::Docker;
    let known = KnownPlugins { needs_image, ..plugins.known() };
    let set = match args.path.as_deref() {
        Some(file) if !file.is_dir() => ProfileSet::load_file(file, &known)?,
        dir => ProfileSet::load(dir.or(config.profiles_dir.as_deref()), &known)?,
    };
    // Plugins say themselves what they think of a tenant's configuration.
    plugins.load_tenants(&host, &config.plugins, &set).await?;
    let mut out = std::io::stdout();
    for profile in set.all() {
        writeln!(out, "profile {}: good", profile.id)?;
    }
    for tenant in set.tenants() {
        writeln!(out, "tenant {}: good", tenant.as_str())?;
    }
    Ok(())
}

/// With the compiled plugins of the data directory, where there is one; else with a place of its own, so that looking
/// makes no data directory.
fn plugin_host(config: &Config) -> anyhow::Result<(PluginHost, Option<tempfile::TempDir>)> {
    let host = |dir: &Path| PluginHost::new(host_options(dir, &config.plugin_limits));
    if config.data_dir.is_dir() {
        return Ok((host(&config.data_dir)?, None));
    }
    let place = tempfile::tempdir().context("cannot make a temporary directory")?;
    Ok((host(place.path())?, Some(place)))
}
