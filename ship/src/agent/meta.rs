//! `GET /meta` and `/capabilities`: what this container can do, read off the table of routes.

use std::collections::BTreeMap;

use bay_ship_api::WORKSPACE;
use bay_ship_api::http::{Meta, RuntimeMeta, WorkspaceMeta};
use bay_ship_api::init::Isolation;
use serde_json::{Map, Value, json};

use super::Ship;
use super::routes::ROUTES;
use crate::python::{EngineKind, State, Status};

/// The answer of `/meta`.
pub(super) fn meta(ship: &Ship) -> Meta {
    Meta {
        runtime: RuntimeMeta {
            name: "ship".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_version: "v1".to_owned(),
            build: option_env!("BAY_BUILD").map(str::to_owned),
        },
        workspace: WorkspaceMeta { mount_path: WORKSPACE.to_owned() },
        isolation: match ship.isolation {
            Isolation::TwoUid => "two_uid",
            Isolation::NestedPid => "nested_pid",
        }
        .to_owned(),
        capabilities: capabilities(ship),
    }
}

/// What this container offers, by name: operations and where each is, and what else is known of it.
pub(super) fn capabilities(ship: &Ship) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (capability, _) in ROUTES.iter().filter_map(|route| route.serves) {
        if ship.offers(capability) && !all.contains_key(capability) {
            all.insert(capability.to_owned(), described(ship, capability));
        }
    }
    all
}

fn described(ship: &Ship, capability: &str) -> Value {
    let mut operations = Vec::new();
    let mut endpoints = Map::new();
    for route in ROUTES {
        if let Some((_, operation)) = route.serves.filter(|(name, _)| *name == capability) {
            operations.push(operation);
            endpoints.insert(operation.to_owned(), format!("{} {}", route.method, route.path).into());
        }
    }
    let mut value = json!({"operations": operations, "endpoints": endpoints});
    match (capability, &ship.python) {
        ("filesystem", _) => value["path_mode"] = "relative".into(),
        ("python", Some(python)) => python_state(&mut value, &python.status()),
        _ => {}
    }
    value
}

fn python_state(value: &mut Value, status: &Status) {
    value["engine"] = json!(status.engine.map(EngineKind::name));
    value["state"] = status.state.name().into();
    value["kernel_seq"] = json!(status.kernel_seq);
    if let State::Failed(why) = &status.state {
        value["reason"] = json!(why);
    }
}
