//! Loading plugins, and the handles that calls go through.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    Admission, Call, ForwardEnd, HostOptions, LoadError, Manifest, Outcome, PlannedRequest, PlannedResponse,
    PluginError, PluginFault, RouteAnswer, RouteRequest, Verdict,
};

/// Where a component comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Built into the binary.
    Embedded(&'static [u8]),
    /// A file.
    File(PathBuf),
}

/// A plugin to load.
#[derive(Debug, Clone)]
pub struct PluginSpec {
    /// The operator's name for it, used in profiles, errors and metrics.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// Its configuration, given with each call.
    pub config: Value,
    /// Names of grants that the operator allows.
    pub grants: Vec<String>,
}

impl PluginSpec {
    /// A plugin with no grants.
    pub fn new(name: impl Into<String>, source: Source, config: Value) -> Self {
        Self { name: name.into(), source, config, grants: Vec::new() }
    }
}

/// Performs what an adapter plans: over pooled connections to the runtime of one container.
#[async_trait]
pub trait Performer: Send + Sync {
    /// Sends a request and reads the whole answer. The error is for the plugin and the log.
    async fn request(&self, request: PlannedRequest) -> Result<PlannedResponse, String>;
    /// Streams the caller's body to the runtime and the runtime's body to the caller, past the guest. An answer
    /// that is neither 2xx nor 304 is not streamed: it comes back in [`ForwardEnd::refusal`].
    async fn forward(&self, request: PlannedRequest) -> Result<ForwardEnd, String>;
}

/// The engine, its limits and the cache of compiled components. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PluginHost {
    options: Arc<HostOptions>,
}

/// A loaded plugin, by role.
#[derive(Debug, Clone)]
pub enum Plugin {
    /// Admits, denies, amends.
    Rules(Arc<RulesPlugin>),
    /// Chooses a container.
    Router(Arc<RouterPlugin>),
    /// Plans a runtime's HTTP.
    Adapter(Arc<AdapterPlugin>),
}

impl Plugin {
    /// The operator's name for it.
    pub fn name(&self) -> &str {
        match self {
            Self::Rules(p) => p.name(),
            Self::Router(p) => p.name(),
            Self::Adapter(p) => p.name(),
        }
    }

    /// SHA-256 of the component, hex.
    pub fn digest(&self) -> &str {
        match self {
            Self::Rules(p) => p.digest(),
            Self::Router(p) => p.digest(),
            Self::Adapter(p) => p.digest(),
        }
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty),* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name { name: String, digest: String, $($field: $ty),* }

        impl $name {
            /// The operator's name for it.
            pub fn name(&self) -> &str {
                &self.name
            }

            /// SHA-256 of the component, hex.
            pub fn digest(&self) -> &str {
                &self.digest
            }

            fn not_linked(&self) -> PluginError {
                PluginError { plugin: self.name.clone(), reason: PluginFault::Contract("not linked yet".into()) }
            }
        }
    };
}

handle!(
    /// A loaded rules plugin.
    RulesPlugin {}
);
handle!(
    /// A loaded router plugin.
    RouterPlugin {}
);
handle!(
    /// A loaded adapter plugin.
    AdapterPlugin { manifest: Manifest }
);

impl PluginHost {
    /// Checks the options, makes the engine and starts its ticker.
    pub fn new(options: HostOptions) -> Result<Self, LoadError> {
        options.check()?;
        Ok(Self { options: Arc::new(options) })
    }

    /// Reads, compiles (or takes from the cache), links and configures one plugin.
    pub async fn load(&self, spec: PluginSpec) -> Result<Plugin, LoadError> {
        let _ = &self.options;
        Err(LoadError::Link { plugin: spec.name, problem: "the plugin host cannot link yet".into() })
    }
}

impl RulesPlugin {
    /// Asks for a verdict.
    pub async fn admit(&self, _admission: &Admission) -> Result<Verdict, PluginError> {
        Err(self.not_linked())
    }
}

impl RouterPlugin {
    /// Asks for a container; the answer is checked against the request.
    pub async fn route(&self, _request: &RouteRequest) -> Result<RouteAnswer, PluginError> {
        Err(self.not_linked())
    }
}

impl AdapterPlugin {
    /// What it can do.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Runs one operation to its end: the guest plans, `performer` acts.
    pub async fn run(
        &self,
        _call: Call,
        _performer: &dyn Performer,
        _deadline: tokio::time::Instant,
    ) -> Result<Outcome, PluginError> {
        Err(self.not_linked())
    }
}
