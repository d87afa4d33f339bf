//! Everything a request needs, built once at start-up; nothing global.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::audit::Failures;
use crate::auth::SystemContext;
use crate::config::Config;
use crate::credentials::Credentials;
use crate::driver::Driver;
use crate::edge::idempotency::Turns;
use crate::edge::middleware::{AllowedHosts, RateLimits};
use crate::execution::Flights;
use crate::places::Places;
use crate::plugins::Plugins;
use crate::profile::Profiles;
use crate::session::{SessionEnv, Sessions};
use crate::store::Store;
use crate::streams::Streams;

/// A running Bay.
pub struct App {
    /// As loaded.
    pub config: Config,
    /// The source of truth.
    pub store: Store,
    /// What sandboxes are.
    pub profiles: Arc<Profiles>,
    /// What decides and plans.
    pub plugins: ArcSwap<Plugins>,
    /// What runs.
    pub sessions: Arc<Sessions>,
    /// What runs it.
    pub driver: Arc<dyn Driver>,
    /// Names under which Bay answers.
    pub allowed_hosts: AllowedHosts,
    /// Calls in flight, of all tenants.
    pub slots: Arc<Semaphore>,
    /// Calls in flight, by tenant.
    pub calls: Places,
    /// What keys and tokens are checked with.
    pub credentials: Credentials,
    /// Executions under way.
    pub flights: Arc<Flights>,
    /// The last requests that were answered with a 5xx.
    pub failures: Failures,
    /// Requests with the same `Idempotency-Key` run one after the other.
    pub turns: Arc<Turns>,
    /// Held by whoever does the housekeeping.
    pub house: tokio::sync::Mutex<()>,
    /// Streams that are open, by tenant.
    pub streams: Streams,
    /// How often each tenant has asked.
    pub rates: RateLimits,
}

/// Most calls in flight: as many as the plugin host runs operations, since each is one.
const MAX_CALLS: usize = 1024;

/// How ready this Bay is, part by part.
pub struct Readiness {
    store: Result<(), String>,
    driver: Result<(), String>,
    about: Value,
}

/// How long `/ready` waits for the driver to say whether it can serve.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

impl Readiness {
    /// Whether requests can be served.
    pub fn is_ready(&self) -> bool {
        self.store.is_ok() && self.driver.is_ok()
    }

    /// For scope `ops`.
    pub fn parts(&self) -> Value {
        let part = |state: &Result<(), String>| match state {
            Ok(()) => json!({ "ok": true }),
            Err(why) => json!({ "ok": false, "reason": why }),
        };
        let (mut driver, mut about) = (part(&self.driver), self.about.clone());
        if let (Some(driver), Some(about)) = (driver.as_object_mut(), about.as_object_mut()) {
            driver.append(about);
        }
        json!({ "store": part(&self.store), "driver": driver })
    }
}

impl App {
    /// Puts the parts together.
    pub fn new(
        config: Config,
        listen: std::net::SocketAddr,
        env: SessionEnv,
        plugins: Arc<Plugins>,
    ) -> Arc<Self> {
        let allowed_hosts = AllowedHosts::new(listen, &config.server.hosts);
        let credentials = Credentials::new(&env.secret, config.server.failed_auth_per_minute);
        let (store, profiles, driver) =
            (env.store.clone(), Arc::clone(&env.profiles), Arc::clone(&env.driver));
        let sessions = Sessions::new(Arc::new(env));
        let plugins = ArcSwap::new(plugins);
        let slots = Arc::new(Semaphore::new(MAX_CALLS));
        let streams = Streams::new(Arc::clone(store.quotas()));
        Arc::new(Self {
            config,
            store,
            profiles,
            plugins,
            sessions,
            driver,
            allowed_hosts,
            slots,
            calls: Places::default(),
            credentials,
            failures: Failures::default(),
            flights: Arc::default(),
            turns: Arc::default(),
            house: tokio::sync::Mutex::default(),
            streams,
            rates: RateLimits::default(),
        })
    }

    /// Capability calls that have not ended, of all tenants.
    pub fn calls_in_flight(&self) -> usize {
        MAX_CALLS.saturating_sub(self.slots.available_permits())
    }

    /// Asks each part.
    pub async fn readiness(&self) -> Readiness {
        let store = self.store.count_keys(&SystemContext::for_background()).await;
        let features = self.driver.features();
        Readiness {
            store: store.map(drop).map_err(|e| e.to_string()),
            driver: self.driver_state().await,
            about: json!({
                "name": self.driver.name(), "isolation": features.isolation, "networks": features.networks,
                "limits": features.limits, "notes": features.notes, "unsettled": self.sessions.unsettled(),
            }),
        }
    }

    async fn driver_state(&self) -> Result<(), String> {
        match tokio::time::timeout(HEALTH_TIMEOUT, self.driver.health()).await {
            Err(_) => Err(format!("it did not answer within {} s", HEALTH_TIMEOUT.as_secs())),
            Ok(Err(error)) => Err(error.to_string()),
            // Until then calls on the sandboxes of an earlier Bay are refused.
            Ok(Ok(())) if !self.sessions.recovered() => {
                Err("what an earlier Bay left has not been gone through yet".to_owned())
            }
            Ok(Ok(())) => Ok(()),
        }
    }
}
