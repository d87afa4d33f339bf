//! One host for all tests of a binary, and runtimes made of canned answers.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bay_plugin_host::{
    AdapterPlugin, Admission, Call, CallContext, ContainerFacts, ForwardEnd, HostOptions, Limits, LoadError,
    Outcome, Performer, PlannedRequest, PlannedResponse, Plugin, PluginError, PluginFault, PluginHost,
    PluginSpec, Principal, ProfileFacts, RouteRequest, RouterPlugin, RulesPlugin, Source,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Shorter than the defaults, so that hostile plugins are over soon.
pub(crate) fn limits() -> Limits {
    Limits {
        pure_timeout: Duration::from_millis(700),
        step_timeout: Duration::from_millis(700),
        ..Limits::default()
    }
}

pub(crate) fn host() -> &'static PluginHost {
    static HOST: OnceLock<PluginHost> = OnceLock::new();
    HOST.get_or_init(|| {
        let cache_dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        PluginHost::new(HostOptions { cache_dir, limits: limits(), max_operations: 64 }).unwrap()
    })
}

pub(crate) fn source(name: &str) -> Source {
    let own = bay_fixtures::bytes(name);
    let default = || bay_embedded::COMPONENTS.iter().find(|(n, _)| *n == name).map(|(_, bytes)| *bytes);
    Source::Embedded(own.or_else(default).unwrap_or_else(|| panic!("there is no component `{name}`")))
}

pub(crate) async fn load(name: &str, config: Value) -> Result<Plugin, LoadError> {
    host().load(PluginSpec::new(name, source(name), config)).await
}

pub(crate) async fn rules(name: &str, config: Value) -> Arc<RulesPlugin> {
    match load(name, config).await.unwrap() {
        Plugin::Rules(p) => p,
        other => panic!("{name} is a {}", other.role()),
    }
}

pub(crate) async fn router(name: &str, config: Value) -> Arc<RouterPlugin> {
    match load(name, config).await.unwrap() {
        Plugin::Router(p) => p,
        other => panic!("{name} is a {}", other.role()),
    }
}

pub(crate) async fn adapter(name: &str, config: Value) -> Arc<AdapterPlugin> {
    match load(name, config).await.unwrap() {
        Plugin::Adapter(p) => p,
        other => panic!("{name} is a {}", other.role()),
    }
}

pub(crate) fn admission(action: &str, input: Value) -> Admission {
    Admission {
        principal: Principal { tenant: "default".into(), key_id: None, scopes: vec![] },
        profile: ProfileFacts { id: "p".into(), capabilities: vec!["python".into()] },
        action: action.into(),
        input,
        ..Admission::default()
    }
}

pub(crate) fn container(name: &str, capabilities: &[&str]) -> ContainerFacts {
    ContainerFacts {
        name: name.into(),
        adapter: format!("adapter-{name}"),
        capabilities: capabilities.iter().map(|c| (*c).into()).collect(),
        ..ContainerFacts::default()
    }
}

pub(crate) fn route_request(capability: &str, containers: Vec<ContainerFacts>) -> RouteRequest {
    RouteRequest {
        capability: capability.into(),
        operation: "exec".into(),
        containers,
        ..RouteRequest::default()
    }
}

pub(crate) fn call(capability: &str, operation: &str, input: Value) -> Call {
    Call {
        capability: capability.into(),
        operation: operation.into(),
        input,
        context: CallContext {
            request_id: "r1".into(),
            sandbox_id: "sbx_1".into(),
            ..CallContext::default()
        },
    }
}

pub(crate) fn within(duration: Duration) -> Instant {
    Instant::now() + duration
}

pub(crate) fn soon() -> Instant {
    within(Duration::from_secs(20))
}

/// A runtime that remembers what it was asked and answers from a list; then it repeats the last answer.
pub(crate) struct Canned {
    pub(crate) asked: Mutex<Vec<PlannedRequest>>,
    answers: Mutex<VecDeque<Result<PlannedResponse, String>>>,
    forward: Mutex<Option<Result<ForwardEnd, String>>>,
}

impl Canned {
    pub(crate) fn new(answers: impl IntoIterator<Item = Result<PlannedResponse, String>>) -> Self {
        Self {
            asked: Mutex::default(),
            answers: Mutex::new(answers.into_iter().collect()),
            forward: Mutex::default(),
        }
    }

    pub(crate) fn ok() -> Self {
        Self::json(200, json!({ "status": "healthy" }))
    }

    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self::raw(status, body.to_string().into_bytes())
    }

    pub(crate) fn raw(status: u16, body: Vec<u8>) -> Self {
        Self::new([Ok(PlannedResponse { status, headers: vec![], body })])
    }

    pub(crate) fn forward(end: Result<ForwardEnd, String>) -> Self {
        let this = Self::new([]);
        *this.forward.lock().unwrap() = Some(end);
        this
    }

    pub(crate) fn and_forward(self, end: Result<ForwardEnd, String>) -> Self {
        *self.forward.lock().unwrap() = Some(end);
        self
    }

    pub(crate) fn last(&self) -> PlannedRequest {
        self.asked.lock().unwrap().last().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[async_trait]
impl Performer for Canned {
    async fn request(&self, request: PlannedRequest) -> Result<PlannedResponse, String> {
        self.asked.lock().unwrap().push(request);
        let mut answers = self.answers.lock().unwrap();
        match answers.len() {
            0 => Err("nobody answers".into()),
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        }
    }

    async fn forward(&self, request: PlannedRequest) -> Result<ForwardEnd, String> {
        self.asked.lock().unwrap().push(request);
        self.forward.lock().unwrap().clone().unwrap_or_else(|| Err("nobody answers".into()))
    }
}

/// A runtime that never answers.
pub(crate) struct Silent;

#[async_trait]
impl Performer for Silent {
    async fn request(&self, _: PlannedRequest) -> Result<PlannedResponse, String> {
        std::future::pending().await
    }

    async fn forward(&self, _: PlannedRequest) -> Result<ForwardEnd, String> {
        std::future::pending().await
    }
}

pub(crate) fn fault<T: std::fmt::Debug>(result: Result<T, PluginError>) -> PluginFault {
    result.unwrap_err().reason
}

pub(crate) fn reply(outcome: Result<Outcome, PluginError>) -> Value {
    match outcome.unwrap() {
        Outcome::Reply(value) => value,
        Outcome::Fail(fault) => panic!("it failed: {fault:?}"),
    }
}

pub(crate) fn failure(outcome: Result<Outcome, PluginError>) -> bay_plugin_host::Fault {
    match outcome.unwrap() {
        Outcome::Reply(value) => panic!("it replied: {value}"),
        Outcome::Fail(fault) => fault,
    }
}
