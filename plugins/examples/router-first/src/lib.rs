//! A router in a dozen lines: the first container that declares the capability, whatever its health.

use exports::bay::plugin::router::{Answer, Guest, Route, RouteRequest};

wit_bindgen::generate!({ path: "../../../wit/since-v0.1.0", world: "router-plugin" });

struct Router;

impl Guest for Router {
    fn check(config: String) -> Result<(), String> {
        match serde_json::from_str::<serde_json::Value>(&config) {
            Ok(config) if config.as_object().is_some_and(|c| c.is_empty()) => Ok(()),
            _ => Err("router-first takes no configuration".into()),
        }
    }

    fn choose(_config: String, request: RouteRequest) -> Answer {
        match request.containers.into_iter().find(|c| c.capabilities.contains(&request.capability)) {
            Some(c) => {
                Answer::Route(Route { container: c.name, adapter: c.adapter, timeout_ms: None, retries: 0 })
            }
            None => Answer::Unroutable("router-first found no container".into()),
        }
    }
}

export!(Router);
