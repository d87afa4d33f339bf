//! Loading: read, check the version, compile or take from the cache, link, configure.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker};

use crate::abi::v0_1::adapter::{Adapter, lift_manifest};
use crate::abi::v0_1::{router::Router, rules::Rules};
use crate::cache::{Cache, Found};
use crate::guest::Shared;
use crate::plugin::Common;
use crate::store::State;
use crate::version::{self, Role};
use crate::{
    AdapterPlugin, HostOptions, LoadError, Manifest, Plugin, PluginError, RouterPlugin, RulesPlugin,
    json as text,
};

/// Largest component: an interpreter's is 18 MB.
const MAX_COMPONENT: u64 = 128 << 20;
/// Largest configuration of a plugin: it is copied into the guest with each call.
const MAX_CONFIG: usize = 64 << 10;
/// Longest message of a plugin about its configuration.
const MAX_MESSAGE: usize = 4096;

/// Where a component comes from.
#[derive(Clone)]
pub enum Source {
    /// Built into the binary.
    Embedded(&'static [u8]),
    /// A file.
    File(PathBuf),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(bytes) => write!(f, "Embedded({} bytes)", bytes.len()),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

/// A plugin to load.
#[derive(Debug, Clone)]
pub struct PluginSpec {
    /// The operator's name for it, used in profiles, errors and metrics.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// Its configuration, given with each call: an object, or null for an empty one.
    pub config: Value,
    /// Names of grants that the operator allows. One is in force only where the manifest asks for it too.
    pub grants: Vec<String>,
}

impl PluginSpec {
    /// A plugin with no grants.
    pub fn new(name: impl Into<String>, source: Source, config: Value) -> Self {
        Self { name: name.into(), source, config, grants: Vec::new() }
    }
}

/// The engine, its limits and the cache of compiled components. Cheap to clone.
#[derive(Clone)]
pub struct PluginHost {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    linker: Linker<State>,
    cache: Cache,
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost").field("options", &self.inner.shared.options).finish_non_exhaustive()
    }
}

/// A component that is compiled but not configured.
struct Compiled {
    role: Role,
    component: Component,
    digest: String,
}

impl PluginHost {
    /// Checks the options, makes the engine and starts its ticker.
    pub fn new(options: HostOptions) -> Result<Self, LoadError> {
        options.check()?;
        let cache = Cache::open(&options.cache_dir);
        let shared = Arc::new(Shared::new(options)?);
        let mut linker = Linker::new(&shared.engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)
            .map_err(|e| LoadError::Engine(format!("WASI does not link: {e:#}")))?;
        Ok(Self { inner: Arc::new(Inner { shared, linker, cache }) })
    }

    /// Reads, compiles (or takes from the cache), links and configures one plugin.
    pub async fn load(&self, spec: PluginSpec) -> Result<Plugin, LoadError> {
        let config = config_text(&spec)?;
        let (inner, of) = (self.inner.clone(), spec.clone());
        // Compiling takes from milliseconds to seconds of every core: not on a thread that serves calls.
        let compiled = tokio::task::spawn_blocking(move || inner.compile(&of))
            .await
            .map_err(|e| LoadError::Engine(format!("compiling ended early: {e}")))??;
        let Compiled { role, component, digest } = compiled;
        let common = Common { name: spec.name.clone(), digest, config, shared: self.inner.shared.clone() };
        let linker = &self.inner.linker;
        let link =
            |e: wasmtime::Error| LoadError::Link { plugin: spec.name.clone(), problem: format!("{e:#}") };
        match role {
            Role::Rules => {
                let plugin = RulesPlugin { common, guest: Rules::link(linker, &component).map_err(link)? };
                accepted(&spec, plugin.check().await)?;
                Ok(Plugin::Rules(Arc::new(plugin)))
            }
            Role::Router => {
                let plugin = RouterPlugin { common, guest: Router::link(linker, &component).map_err(link)? };
                accepted(&spec, plugin.check().await)?;
                Ok(Plugin::Router(Arc::new(plugin)))
            }
            Role::Adapter => {
                let guest = Adapter::link(linker, &component).map_err(link)?;
                let manifest = describe(&spec, &common, &guest).await?;
                let wanted = manifest.wants.iter().map(|w| &w.name);
                let grants = wanted.filter(|name| spec.grants.contains(name)).cloned().collect();
                Ok(Plugin::Adapter(Arc::new(AdapterPlugin { common, guest, manifest, grants })))
            }
        }
    }
}

impl Inner {
    /// Blocking.
    fn compile(&self, spec: &PluginSpec) -> Result<Compiled, LoadError> {
        let read;
        let bytes = match &spec.source {
            Source::Embedded(bytes) => *bytes,
            Source::File(path) => {
                read = read_bounded(path).map_err(|source| LoadError::Read {
                    plugin: spec.name.clone(),
                    path: path.display().to_string(),
                    source,
                })?;
                &read
            }
        };
        let role = version::role(bytes)
            .map_err(|problem| LoadError::Version { plugin: spec.name.clone(), problem })?;
        let digest = hex::encode(Sha256::digest(bytes));
        let (component, found) = self.cache.component(&self.shared.engine, bytes, &digest).map_err(|e| {
            LoadError::Link { plugin: spec.name.clone(), problem: format!("does not compile: {e:#}") }
        })?;
        tracing::debug!(plugin = %spec.name, %digest, cached = (found == Found::Hit), "component ready");
        Ok(Compiled { role, component, digest })
    }
}

fn read_bounded(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_COMPONENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_COMPONENT {
        return Err(std::io::Error::other(format!("larger than {} MiB", MAX_COMPONENT >> 20)));
    }
    Ok(bytes)
}

fn config_text(spec: &PluginSpec) -> Result<String, LoadError> {
    let refuse = |problem: String| LoadError::Config { plugin: spec.name.clone(), problem };
    let config = if spec.config.is_null() { json!({}) } else { spec.config.clone() };
    if !config.is_object() {
        return Err(refuse("it is not a table".into()));
    }
    let config = config.to_string();
    if config.len() > MAX_CONFIG {
        return Err(refuse(format!("it is larger than {} KiB", MAX_CONFIG >> 10)));
    }
    Ok(config)
}

fn accepted(spec: &PluginSpec, checked: Result<Result<(), String>, PluginError>) -> Result<(), LoadError> {
    checked?.map_err(|problem| LoadError::Config {
        plugin: spec.name.clone(),
        problem: text::message(&problem, MAX_MESSAGE),
    })
}

async fn describe(spec: &PluginSpec, common: &Common, guest: &Adapter) -> Result<Manifest, LoadError> {
    let error = |reason| LoadError::Call(PluginError { plugin: spec.name.clone(), reason });
    let mut place = common.shared.place().map_err(error)?;
    let described = place
        .run(common.shared.options.limits.step_timeout, None, async |store| {
            guest.instantiate(store).await?.describe(store, &common.config).await
        })
        .await
        .map_err(error)?;
    let described = described.map_err(|e| error(place.fault(&e)))?;
    let raw = described.map_err(|problem| LoadError::Config {
        plugin: spec.name.clone(),
        problem: text::message(&problem, MAX_MESSAGE),
    })?;
    let refuse = |problem: String| LoadError::Manifest { plugin: spec.name.clone(), problem };
    let manifest = lift_manifest(raw).map_err(refuse)?;
    crate::manifest::check(&manifest).map_err(refuse)?;
    Ok(manifest)
}
