//! The plugins of this Bay: the defaults that ship inside the binary, replaced, removed or joined by what
//! `bay.toml` names. All are loaded alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use bay_plugin_host::{
    AdapterPlugin, LoadError, Plugin, PluginHost, PluginSpec, RouterPlugin, RulesPlugin, Source,
};
use serde_json::Value;

use crate::auth::Tenant;
use crate::catalog::{BadSchema, Catalog};
use crate::config::PluginConfig;
use crate::profile::ProfileSet;

/// An adapter with its operations compiled.
#[derive(Debug)]
pub struct Adapter {
    /// The plugin.
    pub plugin: Arc<AdapterPlugin>,
    /// Its operations.
    pub catalog: Catalog,
}

/// Why the plugins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginsError {
    /// One does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// One describes a schema that is none.
    #[error("plugin `{plugin}`: {source}")]
    Schema {
        /// Which.
        plugin: String,
        /// What is wrong.
        source: BadSchema,
    },
    /// A tenant's chain names something that is not there.
    #[error("tenant `{tenant}` uses plugin `{plugin}`, which is not a rules plugin of this Bay")]
    Unknown {
        /// Whose file.
        tenant: String,
        /// What it names.
        plugin: String,
    },
}

/// Every loaded plugin, by the operator's name for it.
#[derive(Debug, Clone, Default)]
pub struct Plugins {
    rules: BTreeMap<String, Arc<RulesPlugin>>,
    tenant_rules: BTreeMap<Tenant, Vec<Arc<RulesPlugin>>>,
    routers: BTreeMap<String, Arc<RouterPlugin>>,
    adapters: BTreeMap<String, Arc<Adapter>>,
}

/// What ships inside the binary.
fn defaults() -> BTreeMap<String, (Source, Value)> {
    [
        ("rules-default", bay_embedded::RULES_DEFAULT),
        ("router-default", bay_embedded::ROUTER_DEFAULT),
        ("adapter-ship", bay_embedded::ADAPTER_SHIP),
    ]
    .into_iter()
    .map(|(name, bytes)| (name.to_owned(), (Source::Embedded(bytes), Value::Object(serde_json::Map::new()))))
    .collect()
}

impl Plugins {
    /// Loads the defaults as `bay.toml` changes them.
    pub async fn load(
        host: &PluginHost,
        configured: &BTreeMap<String, PluginConfig>,
    ) -> Result<Self, PluginsError> {
        let mut wanted = defaults();
        for (name, config) in configured {
            if !config.enabled {
                wanted.remove(name);
                continue;
            }
            let shipped = wanted.remove(name);
            let source = match (&config.path, shipped) {
                (Some(path), _) => Source::File(path.clone()),
                (None, Some((source, _))) => source,
                // The configuration's own check has refused a plugin with neither path nor default.
                (None, None) => continue,
            };
            wanted.insert(name.clone(), (source, config.config.clone()));
        }
        let mut plugins = Self::default();
        for (name, (source, config)) in wanted {
            let loaded = host.load(PluginSpec::new(name.clone(), source, config)).await?;
            tracing::info!(plugin = %name, digest = %loaded.digest(), "plugin loaded");
            match loaded {
                Plugin::Rules(plugin) => {
                    plugins.rules.insert(name, plugin);
                }
                Plugin::Router(plugin) => {
                    plugins.routers.insert(name, plugin);
                }
                Plugin::Adapter(plugin) => {
                    let catalog = Catalog::new(plugin.manifest())
                        .map_err(|source| PluginsError::Schema { plugin: name.clone(), source })?;
                    plugins.adapters.insert(name, Arc::new(Adapter { plugin, catalog }));
                }
            }
        }
        Ok(plugins)
    }

    /// Names by role, for the check of profiles.
    pub fn known(&self) -> crate::profile::KnownPlugins {
        let adapters = self.adapters.iter().map(|(name, adapter)| {
            let capabilities = &adapter.plugin.manifest().capabilities;
            // A profile cannot offer what only Bay's own routes call.
            let offered = capabilities.iter().filter(|c| c.name != crate::execution::CAPABILITY);
            (name.clone(), offered.map(|c| c.name.clone()).collect())
        });
        crate::profile::KnownPlugins {
            needs_image: false,
            rules: self.rules.keys().cloned().collect(),
            routers: self.routers.keys().cloned().collect(),
            adapters: adapters.collect(),
        }
    }

    /// Loads what tenants add to their chains: the same components with the tenant's own configuration.
    pub async fn load_tenants(
        &mut self,
        host: &PluginHost,
        configured: &BTreeMap<String, PluginConfig>,
        profiles: &ProfileSet,
    ) -> Result<(), PluginsError> {
        for (tenant, name, config) in profiles.tenant_plugins() {
            let unknown =
                || PluginsError::Unknown { tenant: tenant.as_str().to_owned(), plugin: name.clone() };
            let path = configured.get(&name).filter(|c| c.enabled).and_then(|c| c.path.clone());
            let source = match path {
                Some(path) => Source::File(path),
                None => defaults().remove(&name).map(|(source, _)| source).ok_or_else(unknown)?,
            };
            match host.load(PluginSpec::new(name.clone(), source, config)).await? {
                Plugin::Rules(plugin) => self.tenant_rules.entry(tenant).or_default().push(plugin),
                Plugin::Router(_) | Plugin::Adapter(_) => return Err(unknown()),
            }
        }
        Ok(())
    }

    /// The same plugins with what the tenants of another set add to their chains.
    pub async fn with_tenants(
        &self,
        host: &PluginHost,
        configured: &BTreeMap<String, PluginConfig>,
        profiles: &ProfileSet,
    ) -> Result<Self, PluginsError> {
        let mut plugins = Self { tenant_rules: BTreeMap::new(), ..self.clone() };
        plugins.load_tenants(host, configured, profiles).await?;
        Ok(plugins)
    }

    /// The chain for a tenant under a profile: the profile's own, then the tenant's.
    pub fn chain(&self, tenant: &Tenant, profile_rules: &[String]) -> Option<Vec<Arc<RulesPlugin>>> {
        let own = profile_rules.iter().map(|name| self.rules.get(name).cloned());
        let mut chain = own.collect::<Option<Vec<_>>>()?;
        chain.extend(self.tenant_rules.get(tenant).into_iter().flatten().cloned());
        Some(chain)
    }

    /// A router by name.
    pub fn router(&self, name: &str) -> Option<&Arc<RouterPlugin>> {
        self.routers.get(name)
    }

    /// An adapter by name.
    pub fn adapter(&self, name: &str) -> Option<&Arc<Adapter>> {
        self.adapters.get(name)
    }
}
