//! The `adapter` interface.

use wasmtime::Store;
use wasmtime::component::{Component, Linker, ResourceAny};

use super::bindings::adapter::exports::bay::plugin::adapter as wit;
use super::bindings::adapter::{AdapterPlugin, AdapterPluginPre};
use super::bindings::rules::bay::plugin::types;
use super::{MAX_MESSAGE, broken};
use crate::store::State;
use crate::{
    Call, CapabilitySpec, Fault, FaultKind, ForwardEnd, GrantWanted, Manifest, OperationSpec, PlannedRequest,
    PlannedResponse, PluginFault, Target, json,
};

/// Longest code of a runtime in a fault, and largest details.
const MAX_CODE: usize = 100;
const MAX_DETAILS: usize = 64 << 10;

/// A linked adapter component.
pub(crate) struct Adapter(AdapterPluginPre<State>);

/// A fresh instance of it.
pub(crate) struct Instance(AdapterPlugin);

/// One operation in its instance.
pub(crate) struct Operation {
    instance: AdapterPlugin,
    handle: ResourceAny,
}

/// What the guest wants next; not checked yet.
pub(crate) enum Action {
    Requests(Vec<PlannedRequest>),
    Forward(PlannedRequest),
    Sleep(u32),
    Reply(String),
    Fail(Fault),
}

/// Why a request has no response.
pub(crate) struct RequestFailure {
    /// `timeout` or `failed`.
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

/// What happened since.
pub(crate) enum Event {
    Responses(Vec<Result<PlannedResponse, RequestFailure>>),
    Forwarded(Result<ForwardEnd, RequestFailure>),
    Woke,
}

impl Adapter {
    pub(crate) fn link(linker: &Linker<State>, component: &Component) -> wasmtime::Result<Self> {
        Ok(Self(AdapterPluginPre::new(linker.instantiate_pre(component)?)?))
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Instance> {
        self.0.instantiate_async(store).await.map(Instance)
    }
}

impl Instance {
    pub(crate) async fn describe(
        &self,
        store: &mut Store<State>,
        config: &wit::Json,
    ) -> wasmtime::Result<Result<wit::Manifest, String>> {
        self.0.bay_plugin_adapter().call_describe(store, config).await
    }

    /// Constructs and starts an operation.
    pub(crate) async fn start(
        self,
        store: &mut Store<State>,
        call: &wit::Call,
    ) -> wasmtime::Result<(Operation, wit::Action)> {
        let guest = self.0.bay_plugin_adapter().operation();
        let handle = guest.call_constructor(&mut *store, call).await?;
        let action = guest.call_start(&mut *store, handle).await?;
        Ok((Operation { instance: self.0, handle }, action))
    }
}

impl Operation {
    pub(crate) async fn resume(
        &self,
        store: &mut Store<State>,
        event: &wit::Event,
    ) -> wasmtime::Result<wit::Action> {
        self.instance.bay_plugin_adapter().operation().call_resume(store, self.handle, event).await
    }
}

/// To the guest.
pub(crate) fn lower_call(call: &Call, config: &str) -> wit::Call {
    let c = &call.context;
    wit::Call {
        capability: call.capability.clone(),
        operation: call.operation.clone(),
        config: config.to_owned(),
        input: call.input.to_string(),
        context: wit::Context {
            request_id: c.request_id.clone(),
            execution_id: c.execution_id.clone(),
            sandbox_id: c.sandbox_id.clone(),
            session_seq: c.session_seq,
            deadline_ms: c.deadline_ms,
            facts: c.facts.clone(),
        },
    }
}

/// To the guest.
pub(crate) fn lower_event(event: Event) -> wit::Event {
    let error = |f: RequestFailure| wit::RequestError { kind: f.kind.into(), message: f.message };
    match event {
        Event::Responses(all) => {
            wit::Event::Responses(all.into_iter().map(|r| r.map(response).map_err(error)).collect())
        }
        Event::Forwarded(end) => wit::Event::Forwarded(end.map(forward_end).map_err(error)),
        Event::Woke => wit::Event::Woke,
    }
}

fn response(r: PlannedResponse) -> wit::HttpResponse {
    wit::HttpResponse { status: r.status, headers: r.headers, body: r.body }
}

fn forward_end(e: ForwardEnd) -> wit::ForwardEnd {
    wit::ForwardEnd { status: e.status, bytes: e.bytes, end: e.end, refusal: e.refusal }
}

/// From the guest.
pub(crate) fn lift_action(action: wit::Action) -> Result<Action, PluginFault> {
    Ok(match action {
        wit::Action::Requests(all) => Action::Requests(all.into_iter().map(request).collect()),
        wit::Action::Forward(one) => Action::Forward(request(one)),
        wit::Action::Sleep(ms) => Action::Sleep(ms),
        wit::Action::Reply(text) => Action::Reply(text),
        wit::Action::Fail(fault) => Action::Fail(lift_fault(fault)?),
    })
}

fn request(r: wit::HttpRequest) -> PlannedRequest {
    PlannedRequest {
        target: match r.target {
            wit::Target::Runtime => Target::Runtime,
            wit::Target::Granted(name) => Target::Granted(name),
        },
        method: r.method,
        path: r.path,
        query: r.query,
        headers: r.headers.into_iter().map(|(n, v)| (n.to_ascii_lowercase(), v)).collect(),
        body: r.body,
        timeout_ms: r.timeout_ms,
    }
}

fn lift_fault(fault: types::Fault) -> Result<Fault, PluginFault> {
    let kind = FaultKind::from_word(&fault.kind).ok_or_else(|| {
        broken(format!("a fault is of kind `{}`, which there is not", json::message(&fault.kind, 100)))
    })?;
    if fault.details.len() > MAX_DETAILS {
        return Err(broken(format!("a fault's details are larger than {} KiB", MAX_DETAILS >> 10)));
    }
    Ok(Fault {
        kind,
        code: fault.code.map(|c| json::message(&c, MAX_CODE)),
        message: json::message(&fault.message, MAX_MESSAGE),
        details: json::parse_object(&fault.details, "a fault's details").map_err(broken)?,
    })
}

/// From the guest; names and schemas are checked by [`crate::manifest`].
pub(crate) fn lift_manifest(m: wit::Manifest) -> Result<Manifest, String> {
    let capabilities = m.capabilities.into_iter().map(capability).collect::<Result<_, _>>()?;
    let wants = m.wants.into_iter().map(|w| GrantWanted { name: w.name, reason: w.reason }).collect();
    Ok(Manifest { capabilities, wants })
}

fn capability(c: wit::CapabilitySpec) -> Result<CapabilitySpec, String> {
    let operations = c.operations.into_iter().map(operation).collect::<Result<_, _>>()?;
    Ok(CapabilitySpec { name: c.name, summary: c.summary, operations })
}

fn operation(o: wit::OperationSpec) -> Result<OperationSpec, String> {
    let mut spec = OperationSpec {
        input_schema: json::parse(&o.input_schema, "an input schema")?,
        output_schema: json::parse(&o.output_schema, "an output schema")?,
        name: o.name,
        summary: o.summary,
        ..OperationSpec::default()
    };
    for word in &o.traits {
        match word.as_str() {
            "records" => spec.records = true,
            "streams" => spec.streams = true,
            "upgrade" => spec.upgrade = true,
            "safe" => spec.safe = true,
            _ => return Err(format!("trait `{}` is not one that this Bay knows", json::message(word, 100))),
        }
    }
    Ok(spec)
}
