//! Configuration: defaults, then `bay.toml`, then `BAY_…` variables, then flags. Everything has a default.

mod overlay;
mod quota;
mod secrets;
mod sections;
mod server;
mod toml_file;
mod units;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use quota::{Bound, QuotaConfig, Rate};
pub use sections::{
    Config, Connect, DockerConfig, DriverConfig, DriverKind, HistoryConfig, HousekeepingConfig, LogConfig,
    LogFormat, PluginConfig, PluginLimits, ServerConfig, SessionsConfig, ShipConfig, TlsConfig,
};
pub use toml_file::{TomlError, TomlFile, nearest};
pub use units::{Size, Span};

use toml::{Table, Value};

/// Plugins that ship inside the binary: these alone may be configured without a path.
pub const DEFAULT_PLUGINS: [&str; 3] = ["rules-default", "router-default", "adapter-ship"];
/// Most plugins: each costs a compilation and memory.
const MAX_PLUGINS: usize = 64;
/// Most names in `server.hosts`.
const MAX_HOSTS: usize = 64;

/// What the command line says, over everything else.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
}

/// This process's environment, for [`Config::load`]. A variable that is not text is none of ours, and no reason to
/// panic as `std::env::vars` does.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is wrong; drawn with line and caret.
    #[error(transparent)]
    File(#[from] TomlError),
    /// A variable is wrong.
    #[error("error: the environment variable {name} is wrong: {message}")]
    Env {
        /// Which.
        name: String,
        /// What is wrong with its name or value.
        message: String,
    },
    /// The whole does not make sense, by a key that no file sets.
    #[error("error: {key}: {message}")]
    Check {
        /// Which key.
        key: String,
        /// What is wrong and what to write.
        message: String,
    },
    /// There is nowhere to keep data.
    #[error(
        "error: neither $XDG_DATA_HOME nor $HOME is set to an absolute path, so there is no place for data: \
         set data_dir or BAY_DATA_DIR, or use --data-dir"
    )]
    NoDataDir,
}

impl Config {
    /// Reads `path` when there is one, lays `env` and `flags` over it and checks the whole. Blocks: call it at
    /// start-up.
    pub fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let env: Vec<_> = env.into_iter().collect();
        let file = path.map(TomlFile::read).transpose()?;
        let mut table = Table::new();
        if let Some(file) = &file {
            // Typed first: what is wrong in the file is shown in the file.
            file.parse::<Self>()?;
            table = file.parse()?;
            let here = file.path().parent().unwrap_or(Path::new(""));
            resolve_paths(&mut table, here);
        }
        let table = overlay::apply(table, env.iter().cloned())?;
        let mut config: Self = serde_path_to_error::deserialize(table).map_err(|e| ConfigError::Check {
            key: e.path().to_string(),
            message: e.inner().message().to_owned(),
        })?;
        if let Some(data_dir) = &flags.data_dir {
            config.data_dir.clone_from(data_dir);
        }
        if let Some(listen) = flags.listen {
            config.server.listen = listen;
        }
        if config.data_dir.as_os_str().is_empty() {
            config.data_dir = default_data_dir(&env)?;
        }
        config.check().map_err(|wrong| wrong.shown_in(file.as_ref()))?;
        secrets::lay_over(&mut config.plugins)?;
        Ok(config)
    }

    /// What types alone do not refuse.
    fn check(&self) -> Result<(), Wrong> {
        self.server.check_anonymous().map_err(|m| Wrong::new(&["server", "allow_anonymous"], m))?;
        if self.server.hosts.len() > MAX_HOSTS {
            return Err(Wrong::new(&["server", "hosts"], format!("at most {MAX_HOSTS} names")));
        }
        let name =
            |h: &String| !h.is_empty() && h.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'*');
        if let Some(bad) = self.server.hosts.iter().find(|h| !name(h)) {
            let message =
                format!("`{bad}` is not a host name: write the name alone, as in \"bay.example.org\"");
            return Err(Wrong::new(&["server", "hosts"], message));
        }
        let size = self.server.max_body;
        if size < Size::mib(1) || size > Size::mib(64) {
            return Err(Wrong::new(&["server", "max_body"], "must be from 1m to 64m".to_owned()));
        }
        let upload = self.server.max_upload;
        if upload < Size::mib(1) || upload > Size::mib(1024) {
            return Err(Wrong::new(&["server", "max_upload"], "must be from 1m to 1g".to_owned()));
        }
        self.check_server()?;
        let sessions = &self.sessions;
        for (key, span, from, to) in [
            ("start_wait", sessions.start_wait, Span::secs(1), Span::secs(600)),
            ("start_timeout", sessions.start_timeout, Span::secs(1), Span::secs(3600)),
            ("stop_grace", sessions.stop_grace, Span::secs(0), Span::secs(60)),
            ("probe_interval", sessions.probe_interval, Span::secs(1), Span::secs(300)),
        ] {
            if span < from || span > to {
                let message = format!("must be from {}s to {}s", from.as_secs(), to.as_secs());
                return Err(Wrong::new(&["sessions", key], message));
            }
        }
        for (key, span, to) in [
            ("request_timeout", self.docker.request_timeout, Span::secs(600)),
            ("pull_timeout", self.docker.pull_timeout, Span::secs(86_400)),
        ] {
            if span < Span::secs(1) || span > to {
                return Err(Wrong::new(&["docker", key], format!("must be from 1s to {}s", to.as_secs())));
            }
        }
        let house = &self.housekeeping;
        for (key, span, from, to) in [
            ("every", house.every, Span::secs(1), Span::secs(3600)),
            ("expired_grace", house.expired_grace, Span::secs(0), Span::secs(30 * 86_400)),
            ("idempotency_keep", house.idempotency_keep, Span::secs(1), Span::secs(7 * 86_400)),
        ] {
            if span < from || span > to {
                let message = format!("must be from {}s to {}s", from.as_secs(), to.as_secs());
                return Err(Wrong::new(&["housekeeping", key], message));
            }
        }
        if self.history.per_sandbox == 0 {
            return Err(Wrong::new(&["history", "per_sandbox"], "must be at least 1".to_owned()));
        }
        self.quota.check().map_err(|(key, message)| Wrong::new(&["quota", key], message.to_owned()))?;
        self.check_plugins()
    }

    fn check_plugins(&self) -> Result<(), Wrong> {
        if self.plugins.len() > MAX_PLUGINS {
            return Err(Wrong::new(&["plugins"], format!("at most {MAX_PLUGINS} plugins")));
        }
        for (name, plugin) in &self.plugins {
            if !is_name(name) {
                let message = format!("`{name}` is not a plugin name: use 1-32 of a-z, 0-9 and `-`");
                return Err(Wrong::new(&["plugins", name], message));
            }
            if plugin.enabled && plugin.path.is_none() && !DEFAULT_PLUGINS.contains(&name.as_str()) {
                let hint = nearest(name, DEFAULT_PLUGINS.into_iter())
                    .map(|near| format!(" (did you mean `{near}`?)"))
                    .unwrap_or_default();
                let message = format!(
                    "there is no default plugin `{name}`{hint}: give its component as path = \"….wasm\""
                );
                return Err(Wrong::new(&["plugins", name], message));
            }
            if !plugin.config.is_object() {
                let message = "must be a table, as in config = { key = \"value\" }".to_owned();
                return Err(Wrong::new(&["plugins", name, "config"], message));
            }
        }
        Ok(())
    }
}

/// Whether `text` is a name of a plugin or a container: `[a-z0-9-]{1,32}`.
pub fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A check that failed, before it is known whether the file can show it.
struct Wrong {
    at: Vec<String>,
    message: String,
}

impl Wrong {
    fn new(at: &[&str], message: String) -> Self {
        Self { at: at.iter().map(|&s| s.to_owned()).collect(), message }
    }

    fn shown_in(self, file: Option<&TomlFile>) -> ConfigError {
        let at: Vec<&str> = self.at.iter().map(String::as_str).collect();
        match file.filter(|file| file.has(&at)) {
            Some(file) => file.wrong(&at, &self.message, None).into(),
            None => ConfigError::Check { key: self.at.join("."), message: self.message },
        }
    }
}

/// Paths in a file are relative to the file; those of variables and flags to the working directory.
fn resolve_paths(table: &mut Table, here: &Path) {
    let resolve = |value: Option<&mut Value>| {
        if let Some(Value::String(path)) = value
            && !path.is_empty()
            && let Some(joined) = here.join(&path).to_str()
        {
            *path = joined.to_owned();
        }
    };
    resolve(table.get_mut("data_dir"));
    resolve(table.get_mut("profiles_dir"));
    resolve(table.get_mut("ship").and_then(|ship| ship.get_mut("path")));
    for key in ["cert", "key"] {
        resolve(table.get_mut("tls").and_then(|tls| tls.get_mut(key)));
    }
    if let Some(Value::Table(plugins)) = table.get_mut("plugins") {
        for (_, plugin) in plugins.iter_mut() {
            resolve(plugin.get_mut("path"));
            resolve(plugin.get_mut("config_file"));
        }
    }
}

/// `/var/lib/bay` for root, the user's own data directory for anyone else.
fn default_data_dir(env: &[(String, String)]) -> Result<PathBuf, ConfigError> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/bay"));
    }
    data_home(env).map(|home| home.join("bay")).ok_or(ConfigError::NoDataDir)
}

fn data_home(env: &[(String, String)]) -> Option<PathBuf> {
    let absolute = |name: &str| {
        let value = &env.iter().find(|(n, _)| n == name)?.1;
        Some(PathBuf::from(value)).filter(|p| p.is_absolute())
    };
    absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
}
