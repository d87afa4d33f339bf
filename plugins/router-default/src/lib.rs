//! Bay's default router: a container that declares the capability; one known to be sick only where there is no
//! other; then the capability's primary one; then the profile's order.

use serde::Deserialize;

use exports::bay::plugin::router::{Answer, ContainerFacts, Guest, Route, RouteRequest};

wit_bindgen::generate!({ path: "../../wit/since-v0.1.0", world: "router-plugin" });

/// Harmless, since the host retries only what never reached the runtime.
const DEFAULT_RETRIES: u32 = 1;
const MAX_RETRIES: u32 = 3;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// How often a call that never reached its runtime is tried again, 0 to 3; 1 where nothing is said.
    retries: Option<u32>,
}

struct Router;

impl Guest for Router {
    fn check(config: String) -> Result<(), String> {
        let config: Config = serde_json::from_str(&config).map_err(|e| e.to_string())?;
        match config.retries {
            Some(n) if n > MAX_RETRIES => Err(format!("`retries` is {n}; it may be 0 to {MAX_RETRIES}")),
            _ => Ok(()),
        }
    }

    fn choose(config: String, request: RouteRequest) -> Answer {
        let config: Config = serde_json::from_str(&config).unwrap_or_default();
        let wanted = &request.capability;
        let chosen = request
            .containers
            .iter()
            .filter(|c| c.capabilities.contains(wanted))
            // The first of equals, so that the profile's order decides.
            .min_by_key(|c| rank(c, wanted));
        match chosen {
            Some(c) => Answer::Route(Route {
                container: c.name.clone(),
                adapter: c.adapter.clone(),
                timeout_ms: None,
                retries: config.retries.unwrap_or(DEFAULT_RETRIES).min(MAX_RETRIES),
            }),
            None => Answer::Unroutable(format!("no container of this session offers `{wanted}`")),
        }
    }
}

/// Lower is better.
fn rank(container: &ContainerFacts, capability: &String) -> (bool, bool) {
    (container.healthy == Some(false), !container.primary_for.contains(capability))
}

export!(Router);
