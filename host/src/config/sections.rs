//! One struct a concern. Every key has a default, so that no file at all is a good configuration.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::quota::QuotaConfig;
use super::units::{Size, Span};

/// `[server]`: the listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where REST is served.
    pub listen: SocketAddr,
    /// No key needed, `X-Owner` picks the tenant. Loopback only.
    pub allow_anonymous: bool,
    /// Host names, besides loopback ones and the address itself, that requests may be addressed to.
    pub hosts: Vec<String>,
    /// Largest body of a request.
    pub max_body: Size,
    /// Largest upload and archive, as they are sent. A runtime has a bound of its own: Ship's is 1 GiB.
    pub max_upload: Size,
    /// Failed authentications a minute and address that are answered 401; further ones are answered 429.
    pub failed_auth_per_minute: u32,
    /// A second listener, for this machine only: health, readiness part by part and metrics, without a key.
    pub ops_listen: Option<SocketAddr>,
    /// Most connections at once, of each listener; further ones wait.
    pub connections: u32,
    /// Most of them of one address (IPv6: one /64) that is not this machine's own; null: a quarter. A proxy on another
    /// machine counts as one address.
    pub connections_per_address: Option<u32>,
    /// How long the head of a request, or a TLS handshake, may take once it has begun.
    pub head_timeout: Span,
    /// How long a connection is kept without a request.
    pub idle_timeout: Span,
    /// How long a client may send nothing of a body, or take nothing of an answer, before it counts as gone.
    pub client_timeout: Span,
    /// How long calls in flight may go on after Bay was asked to end.
    pub drain_timeout: Span,
    /// Origins whose pages may read answers (`https://app.example.org`); none: CORS is off.
    pub cors_origins: Vec<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8114)),
            allow_anonymous: false,
            hosts: Vec::new(),
            max_body: Size::mib(8),
            max_upload: Size::mib(1024),
            failed_auth_per_minute: 20,
            ops_listen: None,
            connections: 4096,
            connections_per_address: None,
            head_timeout: Span::secs(10),
            idle_timeout: Span::secs(75),
            client_timeout: Span::secs(60),
            drain_timeout: Span::secs(10),
            cors_origins: Vec::new(),
        }
    }
}

/// `[tls]`: HTTPS on the main listener; both files or neither. They are read again when they change, and on SIGHUP.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The certificate and those above it, PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
}

impl ServerConfig {
    /// Without a key, anyone who can connect runs code: that must be nobody but this machine.
    pub fn check_anonymous(&self) -> Result<(), String> {
        if self.allow_anonymous && !self.listen.ip().is_loopback() {
            return Err(format!(
                "allow_anonymous lets anyone who reaches {} run code here, so it works on a loopback address only: \
                 set listen = \"127.0.0.1:{}\", or turn allow_anonymous off and use API keys",
                self.listen,
                self.listen.port()
            ));
        }
        Ok(())
    }
}

/// Which driver runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// bubblewrap on this machine.
    #[default]
    Local,
    /// A Docker daemon.
    Docker,
}

/// How Bay reaches the runtime in a Docker container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// `container_network` where Bay is itself a container of that daemon, else `socket` where one user runs both on
    /// one machine, else `host_port`.
    #[default]
    Auto,
    /// A unix socket in a directory that the container's root alone can enter.
    Socket,
    /// A random port of 127.0.0.1.
    HostPort,
    /// The container's own address.
    ContainerNetwork,
}

/// `[docker]`: for `driver.kind = "docker"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerConfig {
    /// Where the daemon is (`unix:///run/docker.sock`, `tcp://HOST:PORT`); null: the standard variables
    /// (`DOCKER_HOST`, `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`), else the standard socket.
    pub host: Option<String>,
    /// How runtimes are reached.
    pub connect: Connect,
    /// From where each session's own network takes its addresses, as a CIDR of private IPv4 addresses.
    pub subnet_pool: String,
    /// Prefix length of each of them.
    pub subnet_length: u8,
    /// How long one request to the daemon may take.
    pub request_timeout: Span,
    /// How long fetching an image may take.
    pub pull_timeout: Span,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            host: None,
            connect: Connect::default(),
            subnet_pool: "10.213.0.0/16".to_owned(),
            subnet_length: 28,
            request_timeout: Span::secs(30),
            pull_timeout: Span::secs(900),
        }
    }
}

/// `[driver]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriverConfig {
    /// Which one.
    pub kind: DriverKind,
}

/// `[sessions]`: how long things may take.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionsConfig {
    /// How long a call waits for a session that starts, before 503 `session_not_ready`.
    pub start_wait: Span,
    /// How long a start may take in all, before it has failed.
    pub start_timeout: Span,
    /// How long user processes have to end by themselves when a session stops.
    pub stop_grace: Span,
    /// How often a ready session is asked whether it is well.
    pub probe_interval: Span,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            start_wait: Span::secs(30),
            start_timeout: Span::secs(60),
            stop_grace: Span::secs(2),
            probe_interval: Span::secs(5),
        }
    }
}

/// `[history]`: how much of past executions is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// How long.
    pub keep: Span,
    /// How many a sandbox.
    pub per_sandbox: u32,
    /// How much a sandbox.
    pub sandbox_bytes: Size,
    /// How much a tenant.
    pub tenant_bytes: Size,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            keep: Span::secs(30 * 86_400),
            per_sandbox: 10_000,
            sandbox_bytes: Size::mib(256),
            tenant_bytes: Size::mib(4096),
        }
    }
}

/// `[housekeeping]`: work that nobody asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HousekeepingConfig {
    /// How often it is done.
    pub every: Span,
    /// How long an expired sandbox can still be read before it is removed.
    pub expired_grace: Span,
    /// How long a repeat with the same `Idempotency-Key` gets the first answer.
    pub idempotency_keep: Span,
}

impl Default for HousekeepingConfig {
    fn default() -> Self {
        Self { every: Span::secs(60), expired_grace: Span::secs(3600), idempotency_keep: Span::secs(3600) }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// A level (`info`), or levels by module (`info,bay::session=debug`).
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: "info".to_owned() }
    }
}

/// `[plugins.<name>]`: replaces the default of that name, or adds one.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginConfig {
    /// The component; relative to the configuration file. Null: the default of that name.
    pub path: Option<PathBuf>,
    /// Handed to the plugin with every call.
    pub config: serde_json::Value,
    /// A TOML file laid over `config` at start, for what should not stand in `bay.toml`; relative to it.
    pub config_file: Option<PathBuf>,
    /// False takes a default away.
    pub enabled: bool,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            path: None,
            config: serde_json::Value::Object(serde_json::Map::new()),
            config_file: None,
            enabled: true,
        }
    }
}

/// Without `config`, which may hold secrets.
impl std::fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginConfig")
            .field("path", &self.path)
            .field("config_file", &self.config_file)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// `[plugin_limits]`: bounds on plugins; what is not set stays as the plugin host has it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginLimits {
    /// Memory of one instance.
    pub memory: Option<Size>,
    /// Wall time of a rules or router call.
    pub pure_timeout: Option<Span>,
    /// Wall time an adapter may compute between two actions.
    pub step_timeout: Option<Span>,
    /// Largest answer of a plugin.
    pub max_answer: Option<Size>,
    /// Largest response of a runtime that is given to a plugin.
    pub max_response: Option<Size>,
    /// Actions of one operation.
    pub max_steps: Option<u32>,
    /// Requests in one action.
    pub max_requests_per_step: Option<u32>,
    /// Operations in flight, of all tenants.
    pub max_operations: Option<usize>,
}

/// `[ship]`: the runtime binary.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShipConfig {
    /// Another one than the embedded.
    pub path: Option<PathBuf>,
}

/// Everything `bay.toml` may say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything that lasts is kept.
    pub data_dir: PathBuf,
    /// A directory of profiles; null: the embedded ones.
    pub profiles_dir: Option<PathBuf>,
    /// The listener.
    pub server: ServerConfig,
    /// HTTPS.
    pub tls: TlsConfig,
    /// What runs containers.
    pub driver: DriverConfig,
    /// The Docker daemon.
    pub docker: DockerConfig,
    /// How long things may take.
    pub sessions: SessionsConfig,
    /// How much of the past is kept.
    pub history: HistoryConfig,
    /// Work that nobody asks for.
    pub housekeeping: HousekeepingConfig,
    /// How much a tenant may have whose file says nothing else.
    pub quota: QuotaConfig,
    /// Log lines.
    pub log: LogConfig,
    /// Plugins by name.
    pub plugins: BTreeMap<String, PluginConfig>,
    /// Bounds on plugins.
    pub plugin_limits: PluginLimits,
    /// The runtime binary.
    pub ship: ShipConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Empty until `load` has decided: it depends on who runs Bay.
            data_dir: PathBuf::new(),
            profiles_dir: None,
            server: ServerConfig::default(),
            tls: TlsConfig::default(),
            driver: DriverConfig::default(),
            docker: DockerConfig::default(),
            sessions: SessionsConfig::default(),
            history: HistoryConfig::default(),
            housekeeping: HousekeepingConfig::default(),
            quota: QuotaConfig::default(),
            log: LogConfig::default(),
            plugins: BTreeMap::new(),
            plugin_limits: PluginLimits::default(),
            ship: ShipConfig::default(),
        }
    }
}
