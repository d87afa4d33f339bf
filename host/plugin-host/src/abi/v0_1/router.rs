//! The `router` interface.

use wasmtime::Store;
use wasmtime::component::{Component, Linker};

use super::bindings::router::exports::bay::plugin::router as wit;
use super::bindings::router::{RouterPlugin, RouterPluginPre};
use super::rules::profile;
use super::{MAX_MESSAGE, broken};
use crate::store::State;
use crate::{ContainerFacts, MAX_RETRIES, PluginFault, Route, RouteAnswer, RouteRequest, json};

/// A linked router component.
pub(crate) struct Router(RouterPluginPre<State>);

/// A fresh instance of it.
pub(crate) struct Instance(RouterPlugin);

impl Router {
    pub(crate) fn link(linker: &Linker<State>, component: &Component) -> wasmtime::Result<Self> {
        Ok(Self(RouterPluginPre::new(linker.instantiate_pre(component)?)?))
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Instance> {
        self.0.instantiate_async(store).await.map(Instance)
    }
}

impl Instance {
    pub(crate) async fn check(
        &self,
        store: &mut Store<State>,
        config: &wit::Json,
    ) -> wasmtime::Result<Result<(), String>> {
        self.0.bay_plugin_router().call_check(store, config).await
    }

    pub(crate) async fn choose(
        &self,
        store: &mut Store<State>,
        config: &wit::Json,
        request: &wit::RouteRequest,
    ) -> wasmtime::Result<wit::Answer> {
        self.0.bay_plugin_router().call_choose(store, config, request).await
    }
}

/// To the guest.
pub(crate) fn lower(r: &RouteRequest) -> wit::RouteRequest {
    wit::RouteRequest {
        capability: r.capability.clone(),
        operation: r.operation.clone(),
        containers: r.containers.iter().map(container).collect(),
        profile: profile(&r.profile),
        facts: r.facts.clone(),
    }
}

fn container(c: &ContainerFacts) -> wit::ContainerFacts {
    wit::ContainerFacts {
        name: c.name.clone(),
        adapter: c.adapter.clone(),
        capabilities: c.capabilities.clone(),
        primary_for: c.primary_for.clone(),
        healthy: c.healthy,
    }
}

/// From the guest, checked against what it was asked: it can choose only what the session's profile declares.
pub(crate) fn lift(answer: wit::Answer, request: &RouteRequest) -> Result<RouteAnswer, PluginFault> {
    let wit::Route { container, adapter, timeout_ms, retries } = match answer {
        wit::Answer::Unroutable(reason) => {
            return Ok(RouteAnswer::Unroutable { reason: json::message(&reason, MAX_MESSAGE) });
        }
        wit::Answer::Route(route) => route,
    };
    let shown = json::message(&container, 100);
    let Some(chosen) = request.containers.iter().find(|c| c.name == container) else {
        return Err(broken(format!("it chose `{shown}`, which is no container of this session")));
    };
    if chosen.adapter != adapter {
        return Err(broken(format!("it chose another adapter for `{shown}` than the profile declares")));
    }
    if !chosen.capabilities.contains(&request.capability) {
        return Err(broken(format!("it chose `{shown}`, which does not declare `{}`", request.capability)));
    }
    if retries > MAX_RETRIES || timeout_ms == Some(0) {
        return Err(broken("its timeout is zero, or it wants more retries than there may be"));
    }
    Ok(RouteAnswer::Route(Route { container, adapter, timeout_ms, retries }))
}
