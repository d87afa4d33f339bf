//! What a test's Bay is configured with.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::driver::{self, Driver, driver};
use crate::engine::Engine;

/// How to start a Bay. The default is what most tests want: profiles without a network, one key.
#[derive(Debug, Clone)]
pub struct Options {
    /// Merged over the harness's own `bay.toml`.
    pub config: Value,
    /// Profiles to write; the first is `python-default`.
    pub profiles: Vec<Profile>,
    /// Other files to write beside `bay.toml`: relative path and content.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Tenants that get a key of their own before the first start.
    pub tenants: Vec<String>,
    /// More environment for Bay.
    pub env: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: json!({}),
            profiles: vec![Profile::python(), Profile::shell()],
            files: Vec::new(),
            tenants: Vec::new(),
            env: Vec::new(),
        }
    }
}

impl Options {
    /// Merges more configuration in.
    #[must_use]
    pub fn config(mut self, more: Value) -> Self {
        merge(&mut self.config, more);
        self
    }

    /// Adds a profile, or replaces the one of that id.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profiles.retain(|p| p.id != profile.id);
        self.profiles.push(profile);
        self
    }

    /// Names a plugin's component file, written beside `bay.toml`.
    #[must_use]
    pub fn plugin(mut self, name: &str, component: &[u8], config: Value) -> Self {
        let file = PathBuf::from(format!("{name}.wasm"));
        self.files.push((file.clone(), component.to_vec()));
        self.config(json!({ "plugins": { name: { "path": file, "config": config } } }))
    }

    /// Gives a tenant a key.
    #[must_use]
    pub fn tenant(mut self, name: &str) -> Self {
        self.tenants.push(name.into());
        self
    }

    /// The Docker engine that this Bay runs sandboxes on, if it does.
    pub(crate) fn engine(&self) -> Option<Engine> {
        let kind = self.config["driver"]["kind"].as_str();
        let on_docker = kind.map_or(driver() == Driver::Docker, |kind| kind == "docker");
        on_docker.then(|| match self.config["docker"]["host"].as_str() {
            Some(host) => Engine::at(host),
            None => Engine::of_tests(),
        })
    }

    /// `bay.toml`, with everything the harness decides; `pool` is where the addresses of containers come from.
    pub(crate) fn bay_toml(&self, home: &Path, pool: Option<&str>) -> String {
        let mut whole = json!({
            "data_dir": home.join("data"),
            "profiles_dir": home.join("profiles"),
            // Tests send many wrong keys from one address.
            "server": { "listen": "127.0.0.1:0", "failed_auth_per_minute": 100_000 },
        });
        if driver() == Driver::Docker {
            let docker = json!({ "host": Engine::host(), "connect": driver::connect() });
            merge(&mut whole, json!({ "driver": { "kind": "docker" }, "docker": docker }));
        }
        if let Some(pool) = pool {
            merge(&mut whole, json!({ "docker": { "subnet_pool": pool, "subnet_length": 28 } }));
        }
        merge(&mut whole, self.config.clone());
        // A plugin's path is written as the file the harness puts down.
        if let Some(plugins) = whole.get_mut("plugins").and_then(Value::as_object_mut) {
            for plugin in plugins.values_mut() {
                let Some(path) = plugin["path"].as_str().map(PathBuf::from) else { continue };
                if path.is_relative() {
                    plugin["path"] = json!(home.join(path));
                }
            }
        }
        toml::to_string(&whole).expect("configuration as TOML")
    }
}

/// A profile with one Ship.
#[derive(Debug, Clone)]
pub struct Profile {
    /// `id`, and the file's name.
    pub id: String,
    /// Rules chain.
    pub rules: Vec<String>,
    /// Router.
    pub router: String,
    /// Adapter of the one container.
    pub adapter: String,
    /// Capabilities of the one container.
    pub capabilities: Vec<String>,
    /// `none` or `egress`.
    pub network: String,
    /// Top-level keys over the above, such as `max_ttl`.
    pub extra: Value,
    /// Keys of the one container over the above, such as `env` or `resources`.
    pub container: Value,
}

impl Profile {
    fn of(id: &str, capabilities: &[&str]) -> Self {
        Self {
            id: id.into(),
            rules: vec!["rules-default".into()],
            router: "router-default".into(),
            adapter: "adapter-ship".into(),
            capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
            network: "none".into(),
            extra: json!({}),
            container: json!({}),
        }
    }

    /// `python-default`: what a sandbox gets when it asks for nothing, but for the network.
    pub fn python() -> Self {
        Self::of("python-default", &["python", "shell", "filesystem"])
    }

    /// `shell-only`: no Python, so that no kernel has to start.
    pub fn shell() -> Self {
        Self::of("shell-only", &["shell", "filesystem"])
    }

    /// Under another id.
    #[must_use]
    pub fn named(mut self, id: &str) -> Self {
        self.id = id.into();
        self
    }

    /// With keys of its container.
    #[must_use]
    pub fn container(mut self, more: Value) -> Self {
        merge(&mut self.container, more);
        self
    }

    /// With top-level keys.
    #[must_use]
    pub fn with(mut self, more: Value) -> Self {
        merge(&mut self.extra, more);
        self
    }

    /// Its TOML.
    pub(crate) fn toml(&self) -> String {
        let mut container = json!({
            "name": "ship",
            "image": driver::image(),
            "adapter": self.adapter,
            "port": 8123,
            "capabilities": self.capabilities,
            "primary_for": ["filesystem"],
            "resources": { "cpus": 1.0, "memory": "1g", "pids": 128 },
            "network": self.network,
        });
        let own = match driver() {
            Driver::Local => json!({ "local": { "rootfs": "host", "python": python_env() } }),
            Driver::Docker => json!({ "docker": { "image_pull_policy": "never" } }),
        };
        merge(&mut container, own);
        merge(&mut container, self.container.clone());
        let mut whole = json!({
            "id": self.id,
            "idle_timeout": "30m",
            "rules": self.rules,
            "router": self.router,
        });
        merge(&mut whole, self.extra.clone());
        whole["container"] = json!([container]);
        toml::to_string(&whole).expect("profile as TOML")
    }
}

/// The virtual environment that profiles name.
fn python_env() -> PathBuf {
    let dir = std::env::var_os("BAY_TEST_PYTHON").map(PathBuf::from).unwrap_or_else(|| {
        panic!(
            "BAY_TEST_PYTHON names no virtual environment with ipykernel; `cargo xtask test` makes one, or by \
             hand: python3 -m venv DIR && DIR/bin/pip install ipykernel && export BAY_TEST_PYTHON=DIR"
        )
    });
    assert!(dir.join("bin/python3").exists(), "BAY_TEST_PYTHON={} holds no bin/python3", dir.display());
    dir
}

/// Lays `more` over `base`: objects merge, all else replaces.
fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}
