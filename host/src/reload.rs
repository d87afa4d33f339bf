//! Profiles, tenants and quotas change without a restart: on SIGHUP, and when something changes in the directory.
//!
//! ```text
//!  change ──▶ quiet for a moment ──▶ read all, check all, load tenants' plugins ──▶ swap
//!  SIGHUP ──────────────────────▶        └── anything wrong: said in the log, nothing is swapped
//! ```
//!
//! The new set is whole before it is in force. Calls in flight go on with what they began with, connections stay, and
//! running sandboxes keep their containers; they meet a changed profile with their next session. `bay.toml` itself is
//! read at start only.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bay_plugin_host::PluginHost;
use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, NoCache, new_debouncer_opt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::plugins::PluginsError;
use crate::profile::{KnownPlugins, ProfileErrors, ProfileSet};

/// How long a directory has to be quiet: an editor or `git checkout` writes more than one file.
const QUIET: Duration = Duration::from_millis(200);

/// Why the old set stays.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// A file is wrong; drawn with line and caret.
    #[error(transparent)]
    Profiles(#[from] ProfileErrors),
    /// A tenant's plugin does not load.
    #[error(transparent)]
    Plugins(#[from] PluginsError),
    /// Reading ended early.
    #[error("reading the profiles ended early: {0}")]
    Read(#[from] tokio::task::JoinError),
    /// All of it would go at once: every tenant's rules, quotas and list of profiles.
    #[error("{} is no longer there; leave it empty where no tenant is to have a file", .0.display())]
    NoTenants(PathBuf),
}

/// Puts new profiles, tenants and quotas in the place of the old.
pub struct Reloader {
    app: Arc<App>,
    host: PluginHost,
    known: KnownPlugins,
}

impl Reloader {
    /// For this Bay: `known` is what profiles are checked against.
    pub fn new(app: Arc<App>, host: PluginHost, known: KnownPlugins) -> Self {
        Self { app, host, known }
    }

    /// Reloads at every occasion until told to end. One reload at a time; what happens during one leads to another.
    pub async fn run(self, ends: CancellationToken) {
        let (changed, mut changes) = mpsc::channel(1);
        // Held as long as anything is to be noticed.
        let _watch = self.app.config.profiles_dir.as_deref().and_then(|dir| watch(dir, changed.clone()));
        let mut hangups = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be caught, so it does not reload"))
            .ok();
        loop {
            let why = tokio::select! {
                // Never closed: a sender is held here.
                _ = changes.recv() => "the directory changed",
                () = hung_up(&mut hangups) => "SIGHUP",
                () = ends.cancelled() => return,
            };
            match self.reload().await {
                Ok(profiles) => tracing::info!(why, profiles, "profiles and tenants reloaded"),
                Err(error) => {
                    tracing::error!(
                        why,
                        "profiles and tenants were not reloaded, the old ones stay:\n{error}"
                    );
                }
            }
        }
    }

    /// Everything or nothing; how many profiles there are now.
    async fn reload(&self) -> Result<usize, ReloadError> {
        let (dir, known) = (self.app.config.profiles_dir.clone(), self.known.clone());
        let set = tokio::task::spawn_blocking(move || ProfileSet::load(dir.as_deref(), &known)).await??;
        let app = &self.app;
        // A directory that is being exchanged is not there for a moment, and what it forbids must not go with it.
        if let Some(tenants) = app.config.profiles_dir.as_ref().map(|dir| dir.join("tenants"))
            && app.profiles.load().has_tenants()
            && !set.has_tenants()
            && !tenants.is_dir()
        {
            return Err(ReloadError::NoTenants(tenants));
        }
        let plugins = app.plugins.load().with_tenants(&self.host, &app.config.plugins, &set).await?;
        let profiles = set.all().count();
        // What forbids before what allows: a new tenant's rules are in force when its profiles are.
        app.plugins.store(Arc::new(plugins));
        app.store.quotas().store(Arc::new(set.quotas(app.config.quota)));
        app.rates.retain(set.rates(app.config.quota));
        app.profiles.replace(set);
        Ok(profiles)
    }
}

/// The next SIGHUP; never, where none can be caught.
async fn hung_up(hangups: &mut Option<Signal>) {
    if let Some(hangups) = hangups
        && hangups.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

/// Says so when something changes in a directory or beneath it. The directory and not its files: an editor puts a
/// new file in the old one's place, and mounted configuration comes by a link that is turned.
fn watch(dir: &Path, changed: mpsc::Sender<()>) -> Option<Debouncer<RecommendedWatcher, NoCache>> {
    let say = move |result: DebounceEventResult| {
        // Reading the files is an event, too; taken for a change, each reload would bring about the next.
        let news = result.map_or(true, |events| events.iter().any(|event| !event.kind.is_access()));
        if news {
            // One that waits already is enough: a reload reads everything.
            let _waits_already = changed.try_send(());
        }
    };
    let watching = new_debouncer_opt(QUIET, None, say, NoCache, notify::Config::default())
        .and_then(|mut watcher| watcher.watch(dir, RecursiveMode::Recursive).map(|()| watcher));
    watching
        .inspect_err(|error| {
            tracing::warn!(%error, "changes of profiles are not noticed by themselves: send SIGHUP");
        })
        .ok()
}
