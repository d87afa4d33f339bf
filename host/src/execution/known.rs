//! What is asked of an execution that was made before: its output, its events, its end, that it stop. The adapter of
//! the container it runs in says how, by a capability of its own that no profile offers; it is asked only where the
//! session still lives.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::admit::{Admitted, Routed, no_plugin, profile};
use super::dispatch::{self, Client};
use super::streaming::Listener;
use super::work::Work;
use super::{Recorded, Stages};
use crate::app::App;
use crate::auth::OpContext;
use crate::error::{ApiError, ApiResult, Code};
use crate::invoke::{Answer, Wants};
use crate::runtime::CallerRequest;
use crate::session::Lease;
use crate::store::{ExecutionRow, SandboxRow};

/// The capability by which adapters describe this.
pub(crate) const CAPABILITY: &str = "executions";

/// An execution's place, and what is asked there.
pub(crate) struct Known {
    /// The call, to be put to the rules.
    pub(crate) routed: Routed,
    /// Its session, kept from ending while this is held.
    pub(crate) lease: Lease,
}

/// Finds where an execution ran; none where that session is gone. `operation` is one of `executions`.
pub(crate) fn find(
    app: &App,
    sandbox: SandboxRow,
    row: &ExecutionRow,
    operation: &str,
    mut input: Value,
) -> ApiResult<Option<Known>> {
    let lease = app.sessions.ready(&sandbox.id).filter(|lease| Some(lease.live.seq) == row.session_seq);
    let (Some(lease), Some(container)) = (lease, row.container.clone()) else { return Ok(None) };
    let profile = profile(app, &sandbox)?;
    let Some(at) = profile.containers.iter().find(|c| c.name == container) else { return Ok(None) };
    let plugins = app.plugins.load_full();
    let adapter = plugins.adapter(&at.adapter).cloned().ok_or_else(|| no_plugin(&at.adapter))?;
    let Some(known) = adapter.catalog.get(CAPABILITY, operation) else {
        return Err(ApiError::new(
            Code::CapabilityNotSupported,
            format!("what runs this execution cannot tell its {operation}"),
        )
        .with(json!({ "capability": CAPABILITY, "available": profile.capabilities() })));
    };
    input["execution_id"] = row.id.as_str().into();
    let input = known.prepare(input)?;
    let (capability, operation) = (CAPABILITY.to_owned(), operation.to_owned());
    let admitted = Admitted { sandbox, profile, adapter, capability, operation, input, plugins };
    let routed = Routed { admitted, container, retries: 1, timeout: None };
    Ok(Some(Known { routed, lease }))
}

impl Known {
    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, context: &OpContext) -> ApiResult<Value> {
        let (forward, _unused) = oneshot::channel();
        let client = Client { caller: CallerRequest::default(), forward, events: false };
        dispatch::adapt(context, &self.routed, &Recorded::Unrecorded, &self.lease, client).await
    }
}

/// Asks something of an execution that was made before, where it ran; the answer streams.
pub(crate) async fn follow_up(
    app: &Arc<App>,
    context: &OpContext,
    known: Known,
    id: &str,
    wants: Wants,
    caller: CallerRequest,
) -> ApiResult<Answer> {
    let Known { routed, lease } = known;
    let work = Work {
        app: Arc::clone(app),
        context: context.clone(),
        stages: Arc::new(Stages::begin()),
        flying: None,
        at: Some(lease),
        _slot: dispatch::slot(app, &context.tenant)?,
        _stream: None,
    };
    let recorded = Recorded::Known { id: id.to_owned() };
    if wants == Wants::Events {
        let (opened, open) = oneshot::channel();
        let stream = app.streams.open(&context.tenant)?;
        let (listener, events) = Listener::beside(opened, stream);
        tokio::spawn(work.stream(routed, recorded, caller, listener));
        return match open.await {
            Ok(open) => open.map(|()| Answer::Events(events)),
            Err(_) => Err(dispatch::abandoned()),
        };
    }
    let (answer, answered) = oneshot::channel();
    tokio::spawn(work.run(routed, recorded, caller, answer));
    answered.await.unwrap_or_else(|_| Err(dispatch::abandoned()))
}

/// Puts what is asked to the rules, whatever session there is.
pub(crate) async fn rules(
    app: &App,
    context: &OpContext,
    sandbox: &SandboxRow,
    action: &str,
    input: Value,
) -> ApiResult<Value> {
    let profile = profile(app, sandbox)?;
    let plugins: Arc<_> = app.plugins.load_full();
    super::admit::ask_rules(&plugins, context, sandbox, &profile, action, input).await.map(|(input, _)| input)
}
