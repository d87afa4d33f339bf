//! A router that misbehaves as its configuration says: `{"mode": "stranger"}`.

use exports::bay::plugin::router::{Answer, Guest, Route, RouteRequest};

wit_bindgen::generate!({ path: "../../../wit/since-v0.1.0", world: "router-plugin" });

include!("../../misbehave.rs");

struct Router;

impl Guest for Router {
    fn check(_config: String) -> Result<(), String> {
        Ok(())
    }

    fn choose(config: String, request: RouteRequest) -> Answer {
        let mode = mode(&config);
        misbehave(&mode);
        let last = request.containers.last().map(|c| (c.name.clone(), c.adapter.clone())).unwrap_or_default();
        let mut route = Route { container: last.0, adapter: last.1, timeout_ms: None, retries: 0 };
        match mode.as_str() {
            "huge" => return Answer::Unroutable(huge()),
            "large" => return Answer::Unroutable(large()),
            "stranger" => route.container = "somebody-elses".into(),
            "other-adapter" => route.adapter = "adapter-evil".into(),
            "zero-timeout" => route.timeout_ms = Some(0),
            "retries" => route.retries = u32::MAX,
            // "behave" and "incapable": the last container, capable or not.
            _ => {}
        }
        Answer::Route(route)
    }
}

export!(Router);
