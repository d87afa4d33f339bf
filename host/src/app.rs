//! Everything a request needs, built once at start-up; nothing global.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::audit::Failures;
use crate::auth::keys::ApiKey;
use crate::auth::{Scope, SystemContext, Tenant};
use crate::config::Config;
use crate::driver::Driver;
use crate::edge::idempotency::Turns;
use crate::edge::middleware::{AllowedHosts, RateLimits};
use crate::error::{ApiError, ApiResult, Code};
use crate::plugins::Plugins;
use crate::profile::Profiles;
use crate::session::{SessionEnv, Sessions};
use crate::store::{NewKey, Store, StoreError};
use crate::streams::Streams;
use crate::time::now_ms;

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

/// Whose key it was.
pub struct KeyOwner {
    /// `key_…`
    pub id: String,
    /// Its tenant.
    pub tenant: Tenant,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

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
        let (store, profiles, driver) =
            (env.store.clone(), Arc::clone(&env.profiles), Arc::clone(&env.driver));
        let sessions = Sessions::new(Arc::new(env));
        let plugins = ArcSwap::new(plugins);
        let slots = Arc::new(Semaphore::new(MAX_CALLS));
        let (turns, failures, house) = (Arc::default(), Failures::default(), tokio::sync::Mutex::default());
        let streams = Streams::new(Arc::clone(store.quotas()));
        let rates = RateLimits::default();
        Arc::new(Self {
            config,
            store,
            profiles,
            plugins,
            sessions,
            driver,
            allowed_hosts,
            slots,
            failures,
            turns,
            house,
            streams,
            rates,
        })
    }

    /// Whose key this is. An unknown id and a wrong secret take the same path and give the same answer.
    pub async fn authenticate_key(&self, text: &str) -> ApiResult<KeyOwner> {
        let refused = || ApiError::new(Code::Unauthorized, "this API key is not known, or has expired");
        let key = ApiKey::parse(text).ok_or_else(refused)?;
        let row = self.store.find_key(&SystemContext::for_background(), &key.id()).await?;
        let good = key.verify(row.as_ref().map(|r| &r.hash));
        match row.filter(|r| good && r.is_valid(now_ms())) {
            Some(row) => Ok(KeyOwner { id: row.id, tenant: row.tenant, scopes: row.scopes }),
            None => Err(refused()),
        }
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

/// Makes a key; the only moment at which its secret exists outside its owner's hands.
pub async fn create_key(
    store: &Store,
    tenant: &Tenant,
    name: &str,
    scopes: Vec<Scope>,
) -> Result<ApiKey, StoreError> {
    let key = ApiKey::mint().map_err(|e| StoreError::Unavailable { reason: e.to_string() })?;
    let new = NewKey {
        id: key.id(),
        name: name.to_owned(),
        hash: key.hash(),
        scopes,
        created_at: now_ms(),
        expires_at: None,
    };
    store.create_key(tenant, new).await?;
    Ok(key)
}
