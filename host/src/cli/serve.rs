//! `bay serve`: from nothing to a listening Bay, one part after the other.

mod listeners;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bay_plugin_host::{HostOptions, PluginHost};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::keys::ApiKey;
use crate::auth::{Scope, SystemContext, Tenant};
use crate::background;
use crate::config::{Config, DriverKind, Flags, PluginLimits, environment};
use crate::credentials::{KeyRequest, create_key};
use crate::driver::docker::DockerDriver;
use crate::driver::local::LocalDriver;
use crate::driver::{DockerOptions, Driver, LocalOptions};
use crate::edge::admin_socket::AdminSocket;
use crate::edge::router;
use crate::execution::follow;
use crate::instance::Instance;
use crate::plugins::Plugins;
use crate::profile::{KnownPlugins, ProfileSet, Profiles};
use crate::reload::Reloader;
use crate::session::{SessionEnv, adopt, recover};
use crate::store::Store;
use crate::telemetry;
use listeners::Listeners;

/// What can be typed after `bay serve`.
#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    /// Configuration file; none: every default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything that lasts is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where to write the API key made at first start (mode 0600), instead of printing it.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT. Sandboxes go on; the next Bay on this data directory takes them over.
pub(super) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let flags = Flags { data_dir: args.data_dir, listen: args.listen };
    let config = Config::load(args.config.as_deref(), environment(), &flags)?;
    telemetry::init(&config.log)?;
    telemetry::metrics::install()?;
    let listeners = Listeners::bind(&config).await?;
    let address = listeners.main.local_addr()?;
    let (app, reloader) = build(config, address).await?;
    first_key(&app, args.key_file.as_deref()).await?;

    let ends = CancellationToken::new();
    admin_socket(&app, &ends);
    let house = background::run(Arc::clone(&app), ends.clone());
    let house = tokio::spawn(house);
    let reloads = tokio::spawn(reloader.run(ends.clone()));
    let following = tokio::spawn(follow(Arc::clone(&app), ends.clone()));
    let recovery = tokio::spawn(recover(Arc::clone(&app.sessions), ends.clone()));

    listeners.serve(&app).await?;
    ends.cancel();
    house.await?;
    reloads.await?;
    // Not waited for: it may be asking a driver that does not answer, and the next Bay finds the same work.
    recovery.abort();
    following.abort();
    tracing::info!("stopped; sandboxes go on and are taken over at the next start");
    Ok(())
}

/// Lets `bay key` in while Bay runs. A file system without sockets is no reason not to serve.
fn admin_socket(app: &Arc<App>, ends: &CancellationToken) {
    match AdminSocket::bind(&app.config.data_dir) {
        Ok(socket) => {
            tokio::spawn(socket.serve(router::operator_router(Arc::clone(app)), ends.clone()));
        }
        Err(error) => tracing::warn!(%error, "no admin socket: `bay key` works only while Bay is stopped"),
    }
}

async fn build(config: Config, address: SocketAddr) -> anyhow::Result<(Arc<App>, Reloader)> {
    let instance = Instance::open(&config.data_dir)?;
    let store = Store::open(instance.data_dir())?;
    let ship = match &config.ship.path {
        Some(path) => path.canonicalize().with_context(|| format!("ship.path {}", path.display()))?,
        None => instance.install_ship(bay_embedded::SHIP)?,
    };
    let driver = driver(&config, &instance, ship).await?;
    let features = driver.features();
    tracing::info!(
        driver = driver.name(), isolation = ?features.isolation, networks = ?features.networks,
        limits = %features.limits, "driver ready",
    );
    for note in &features.notes {
        tracing::warn!("{note}");
    }

    let host = PluginHost::new(host_options(instance.data_dir(), &config.plugin_limits))?;
    let mut plugins = Plugins::load(&host, &config.plugins).await?;
    let needs_image = config.driver.kind == DriverKind::Docker;
    let known = KnownPlugins { needs_image, ..plugins.known() };
    let profiles = ProfileSet::load(config.profiles_dir.as_deref(), &known)?;
    plugins.load_tenants(&host, &config.plugins, &profiles).await?;

    store.quotas().store(Arc::new(profiles.quotas(config.quota)));
    let env = SessionEnv {
        driver,
        store,
        profiles: Arc::new(Profiles::new(profiles)),
        secret: instance.secret.clone(),
        instance_id: instance.id.clone(),
        start_timeout: *config.sessions.start_timeout,
        stop_grace: *config.sessions.stop_grace,
        probe_interval: *config.sessions.probe_interval,
    };
    let app = App::new(config, address, env, Arc::new(plugins));
    let report = adopt(&app.sessions, &SystemContext::for_background()).await?;
    tracing::info!(?report, "took over what an earlier Bay left");
    let reloader = Reloader::new(Arc::clone(&app), host, known);
    Ok((app, reloader))
}

async fn driver(config: &Config, instance: &Instance, ship: PathBuf) -> anyhow::Result<Arc<dyn Driver>> {
    match config.driver.kind {
        DriverKind::Local => {
            let options = LocalOptions {
                data_dir: instance.data_dir().to_owned(),
                ship,
                instance_id: instance.id.clone(),
            };
            let driver = tokio::task::spawn_blocking(move || LocalDriver::probe(&options)).await??;
            Ok(Arc::new(driver))
        }
        DriverKind::Docker => {
            let options = DockerOptions {
                config: config.docker.clone(),
                data_dir: instance.data_dir().to_owned(),
                ship,
                instance_id: instance.id.clone(),
            };
            let driver = DockerDriver::new(&options)?;
            // An absent daemon is no reason not to start: `/ready` says so until it is there.
            if let Err(error) = driver.health().await {
                tracing::warn!(%error, "the driver cannot serve yet");
            }
            Ok(Arc::new(driver))
        }
    }
}

pub(super) fn host_options(data_dir: &Path, configured: &PluginLimits) -> HostOptions {
    let mut options = HostOptions::new(data_dir.join("plugin-cache"));
    let bytes = |size: crate::config::Size| usize::try_from(size.bytes()).unwrap_or(usize::MAX);
    let limits = &mut options.limits;
    limits.memory_bytes = configured.memory.map_or(limits.memory_bytes, bytes);
    limits.pure_timeout = configured.pure_timeout.map_or(limits.pure_timeout, |t| *t);
    limits.step_timeout = configured.step_timeout.map_or(limits.step_timeout, |t| *t);
    limits.max_answer_bytes = configured.max_answer.map_or(limits.max_answer_bytes, bytes);
    limits.max_response_bytes = configured.max_response.map_or(limits.max_response_bytes, bytes);
    limits.max_steps = configured.max_steps.unwrap_or(limits.max_steps);
    limits.max_requests_per_step = configured.max_requests_per_step.unwrap_or(limits.max_requests_per_step);
    options.max_operations = configured.max_operations.unwrap_or(options.max_operations);
    options
}

/// The first start makes a key, and tells it once.
async fn first_key(app: &App, key_file: Option<&Path>) -> anyhow::Result<()> {
    if app.config.server.allow_anonymous {
        say("anonymous access from loopback is on: no key is needed, do not use this beyond development");
    }
    if app.store.count_keys(&SystemContext::for_background()).await? > 0 {
        return Ok(());
    }
    let wanted = KeyRequest {
        tenant: Tenant::default_tenant(),
        name: "first start".to_owned(),
        scopes: Scope::ALL.to_vec(),
        expires_at: None,
    };
    let (_row, key) = create_key(&app.store, wanted).await?;
    match key_file {
        Some(path) => write_key(path, &key),
        None => {
            say(&format!("API key (shown once, keep it): {}", key.reveal()));
            Ok(())
        }
    }
}

fn write_key(path: &Path, key: &ApiKey) -> anyhow::Result<()> {
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| writeln!(file, "{}", key.reveal()));
    written.with_context(|| format!("cannot write the API key to {}", path.display()))
}

/// To the person at the terminal, whatever the log's level.
fn say(line: &str) {
    // Nobody is left to tell when stderr is gone.
    let _unheard = writeln!(std::io::stderr(), "{line}");
}
