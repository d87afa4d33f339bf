//! What a profile and a tenant's file say.

use std::collections::{BTreeMap, BTreeSet};

use bay_ship_api::init::Isolation;
use serde::{Deserialize, Serialize};

use crate::auth::Tenant;
use crate::config::{QuotaConfig, Size, Span};
use crate::driver::{Network, PullPolicy};

/// How much of an execution is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// Code and output, at most 64 KiB each.
    #[default]
    Full,
    /// That it ran, when, how long and how it ended.
    Metadata,
    /// As `metadata` while it runs; it is not listed.
    Off,
}

/// What a sandbox is made of and may do.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, `[a-z0-9-]{1,32}`.
    pub id: String,
    /// For people.
    pub description: Option<String>,
    /// A session nothing calls for this long is stopped.
    #[serde(default = "Profile::default_idle_timeout")]
    pub idle_timeout: Span,
    /// Longest idle time that a client may choose for its sandbox; null: it has none to choose.
    pub idle_timeout_max: Option<Span>,
    /// Longest life of a sandbox; null: no bound.
    pub max_ttl: Option<Span>,
    /// Rules plugins, asked in this order.
    #[serde(default = "Profile::default_rules")]
    pub rules: Vec<String>,
    /// The router plugin.
    #[serde(default = "Profile::default_router")]
    pub router: String,
    /// Environment of user processes in every container.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The separation of user code from the runtime that it demands; null: the best there is.
    pub isolation: Option<Isolation>,
    /// How much of an execution is kept.
    #[serde(default)]
    pub history: History,
    /// What a session consists of.
    #[serde(rename = "container")]
    pub containers: Vec<Container>,
}

impl Profile {
    fn default_idle_timeout() -> Span {
        Span::secs(30 * 60)
    }

    fn default_rules() -> Vec<String> {
        vec!["rules-default".to_owned()]
    }

    fn default_router() -> String {
        "router-default".to_owned()
    }

    /// Everything its containers offer, sorted, each once: the ceiling of what a sandbox can do.
    pub fn capabilities(&self) -> Vec<String> {
        let all: BTreeSet<&String> = self.containers.iter().flat_map(|c| &c.capabilities).collect();
        all.into_iter().cloned().collect()
    }

    /// Whether some container offers it.
    pub fn offers(&self, capability: &str) -> bool {
        self.containers.iter().any(|c| c.capabilities.iter().any(|offered| offered == capability))
    }
}

/// One container of a session.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name within the profile, `[a-z0-9-]{1,32}`.
    pub name: String,
    /// For drivers that have images.
    pub image: Option<String>,
    /// The plugin that speaks to its runtime.
    pub adapter: String,
    /// The port of its runtime.
    #[serde(default = "Container::default_port")]
    pub port: u16,
    /// What it offers.
    pub capabilities: Vec<String>,
    /// Which of them it offers before any other container.
    #[serde(default)]
    pub primary_for: Vec<String>,
    /// Its bounds.
    #[serde(default)]
    pub resources: Resources,
    /// What it may reach.
    #[serde(default = "Container::default_network")]
    pub network: Network,
    /// Environment of its user processes, over the profile's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// For the local driver.
    #[serde(default)]
    pub local: LocalContainer,
    /// For the Docker driver.
    #[serde(default)]
    pub docker: DockerContainer,
}

impl Container {
    fn default_port() -> u16 {
        8123
    }

    /// Nothing, unless the profile says so.
    fn default_network() -> Network {
        Network::None
    }
}

/// Bounds of one container.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Cores.
    pub cpus: f64,
    /// Memory.
    pub memory: Size,
    /// Processes and threads.
    pub pids: u64,
    /// How much of each of an execution's streams is kept to be read by range, on a disk outside the workspace.
    pub output: Size,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpus: 1.0, memory: Size::mib(1024), pids: 256, output: Size::mib(64) }
    }
}

/// What the local driver uses in place of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalContainer {
    /// `host`: the host's own system directories, read-only; or a directory with a root filesystem.
    pub rootfs: String,
    /// `auto`: a virtual environment in the data directory; or the directory of one.
    pub python: String,
}

impl Default for LocalContainer {
    fn default() -> Self {
        Self { rootfs: "host".to_owned(), python: "auto".to_owned() }
    }
}

/// What only the Docker driver knows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerContainer {
    /// When the image is fetched.
    #[serde(rename = "image_pull_policy")]
    pub pull: PullPolicy,
    /// An OCI runtime that the daemon knows by this name, such as `runsc`.
    pub runtime: Option<String>,
    /// Size of `/tmp`, which is memory.
    pub tmp: Size,
}

impl Default for DockerContainer {
    fn default() -> Self {
        Self { pull: PullPolicy::default(), runtime: None, tmp: Size::mib(256) }
    }
}

/// A tenant's file. A tenant without one may use every profile.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantFile {
    /// Which tenant.
    pub id: Tenant,
    /// Profiles it may use; `*` stands for any characters.
    #[serde(default = "TenantFile::every_profile")]
    pub profiles: Vec<String>,
    /// What it gets when it asks for none; null: `python-default`.
    pub default_profile: Option<String>,
    /// Longest life of its sandboxes, where the profile has none that is shorter; null: the profile's.
    pub max_ttl: Option<Span>,
    /// How much it may have, over `[quota]` of `bay.toml`.
    #[serde(default)]
    pub quota: QuotaConfig,
    /// Rules plugins appended to the chain of every profile it uses, by name.
    #[serde(default)]
    pub plugins: BTreeMap<String, TenantPlugin>,
}

impl TenantFile {
    fn every_profile() -> Vec<String> {
        vec!["*".to_owned()]
    }

    /// Whether it may use the profile.
    pub fn allows(&self, profile: &str) -> bool {
        self.profiles.iter().any(|pattern| matches(pattern, profile))
    }
}

/// A rules plugin that a tenant adds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantPlugin {
    /// Handed to the plugin with every call of this tenant.
    pub config: serde_json::Value,
}

impl Default for TenantPlugin {
    fn default() -> Self {
        Self { config: serde_json::Value::Object(serde_json::Map::new()) }
    }
}

/// Plugins that are there, for checking the names in profiles; and what the driver needs of each.
#[derive(Debug, Clone, Default)]
pub struct KnownPlugins {
    /// Whether the driver runs images, so that a container without one could not start.
    pub needs_image: bool,
    /// Rules plugins.
    pub rules: BTreeSet<String>,
    /// Routers.
    pub routers: BTreeSet<String>,
    /// Adapters, each with the capabilities it describes.
    pub adapters: BTreeMap<String, BTreeSet<String>>,
}

/// Whether `text` fits `pattern`, in which `*` stands for any characters.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    // Without a `*` there is nothing but the first part, and it has to be everything.
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        // The leftmost place leaves the most for the parts that follow.
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}
