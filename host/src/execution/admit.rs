//! Everything that is decided before anything starts: found, not expired, declared, known, fitting, allowed,
//! routable.

use std::sync::Arc;
use std::time::Duration;

use bay_plugin_host::{
    Admission, ContainerFacts, Principal, ProfileFacts, RouteAnswer, RouteRequest, SandboxFacts,
};
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::OpContext;
use crate::catalog::Operation;
use crate::error::{ApiError, ApiResult, Code};
use crate::id::Kind;
use crate::invoke::{DEADLINE_GRACE, WAIT_GRACE};
use crate::locker;
use crate::plugins::{Adapter, Plugins};
use crate::profile::{Container, FILESYSTEM, Profile};
use crate::rules;
use crate::store::SandboxRow;
use crate::time::{now_ms, rfc3339};

/// Bound of an operation that has no timeout of its own: one file, one listing.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Bound of an operation that streams. What bounds one is how long it may pause, not how long it takes: a large file
/// over a slow line, a terminal that somebody comes back to.
const STREAM_TIMEOUT: Duration = Duration::from_secs(7 * 86_400);
/// Longest `description` and `tags` of an execution, in bytes.
const MAX_NOTE: usize = 4096;

/// A call that may be put to the rules.
pub(crate) struct Admitted {
    /// Whose sandbox, which profile.
    pub(crate) sandbox: SandboxRow,
    /// The profile as it is now.
    pub(crate) profile: Arc<Profile>,
    /// The adapter whose schema the input fits.
    pub(crate) adapter: Arc<Adapter>,
    /// For instance `python`.
    pub(crate) capability: String,
    /// For instance `exec`.
    pub(crate) operation: String,
    /// Fits the operation's schema; defaults filled, paths normalised.
    pub(crate) input: Value,
    pub(super) plugins: Arc<Plugins>,
}

/// A call with a place to go.
pub(crate) struct Routed {
    /// The call.
    pub(crate) admitted: Admitted,
    /// Name of the container within the session.
    pub(crate) container: String,
    /// How often to try again to reach the runtime.
    pub(crate) retries: u32,
    /// The router's tighter bound, if any.
    pub(crate) timeout: Option<Duration>,
}

impl Admitted {
    /// A call on files that was checked and put to the rules elsewhere: see `locker::files`.
    pub(crate) fn elsewhere(
        sandbox: SandboxRow,
        profile: Arc<Profile>,
        adapter: Arc<Adapter>,
        plugins: Arc<Plugins>,
        operation: &str,
        input: Value,
    ) -> Self {
        let (capability, operation) = (FILESYSTEM.to_owned(), operation.to_owned());
        Self { sandbox, profile, adapter, capability, operation, input, plugins }
    }

    /// 507 where the call is about to write what its locker has no room for. `announced` is the length of a body that
    /// streams.
    pub(crate) async fn make_room(self, app: &App, announced: Option<u64>) -> ApiResult<Self> {
        let safe = self.spec()?.spec.safe;
        if locker::writes(&self.capability, &self.operation, safe) {
            let bytes = locker::incoming(&self.input, announced);
            locker::make_room(&app.sessions, &self.sandbox.tenant, &self.sandbox.locker_id, bytes).await?;
        }
        Ok(self)
    }

    /// The operation as its adapter describes it; `admit` has made sure that it exists.
    pub(crate) fn spec(&self) -> ApiResult<&Operation> {
        self.adapter
            .catalog
            .get(&self.capability, &self.operation)
            .ok_or_else(|| ApiError::internal("an admitted operation is unknown to its adapter"))
    }

    pub(crate) fn is_recorded(&self) -> bool {
        self.spec().is_ok_and(|op| op.spec.records)
    }

    /// Seconds of the execution's own timeout, where it has one.
    fn own_timeout(&self) -> Option<Duration> {
        self.input["timeout"].as_u64().map(Duration::from_secs)
    }

    /// How long the client waits before it gets 202.
    pub(crate) fn wait(&self) -> Duration {
        let asked = self.input["wait"].as_u64().map(Duration::from_secs).filter(|_| self.is_recorded());
        asked.unwrap_or_else(|| match self.own_timeout() {
            // The host's own deadline answers first where the work itself never ends.
            Some(own) if self.is_recorded() => own + WAIT_GRACE,
            Some(_) | None => self.deadline() + WAIT_GRACE,
        })
    }

    /// How long the adapter and its runtime have in all.
    pub(crate) fn deadline(&self) -> Duration {
        if let Some(own) = self.own_timeout() {
            return own + DEADLINE_GRACE;
        }
        if self.is_stream() { STREAM_TIMEOUT } else { CALL_TIMEOUT }
    }

    /// Whether bytes go past the adapter for as long as both sides like. What is recorded streams its events only; its
    /// runtime bounds it by a timeout of its own.
    fn is_stream(&self) -> bool {
        self.spec().is_ok_and(|op| (op.spec.streams || op.spec.upgrade) && !op.spec.records)
    }
}

impl Routed {
    /// Whether it takes a place among its tenant's open streams.
    pub(crate) fn is_stream(&self) -> bool {
        self.admitted.is_stream()
    }

    /// A connection switches protocols only where the adapter says so and the client asked.
    pub(crate) fn check_upgrade(&self, asked: bool) -> ApiResult<()> {
        match (self.admitted.spec()?.spec.upgrade, asked) {
            (true, true) | (false, false) => Ok(()),
            (true, false) => Err(ApiError::field("Upgrade", "this operation is a WebSocket; open it as one")),
            (false, true) => Err(ApiError::internal("an upgrade that the adapter does not offer")),
        }
    }
}

/// Finds the sandbox and the operation and checks the input: 404, expired, declared, known, fits.
pub(crate) async fn admit(
    app: &App,
    context: &OpContext,
    sandbox_id: &str,
    capability: &str,
    operation: &str,
    input: Value,
) -> ApiResult<Admitted> {
    let sandbox = find_sandbox(app, context, sandbox_id).await?;
    not_expired(&sandbox)?;
    let profile = profile(app, &sandbox)?;
    let container = declared(&profile, capability)?;
    let plugins = app.plugins.load_full();
    let adapter =
        plugins.adapter(&container.adapter).cloned().ok_or_else(|| no_plugin(&container.adapter))?;
    let known = adapter.catalog.get(capability, operation).ok_or_else(|| {
        let names = adapter.catalog.names(capability);
        ApiError::not_found("operation", &format!("{capability}.{operation}"))
            .with(json!({ "resource": "operation", "id": operation, "available": names }))
    })?;
    let input = known.prepare(input)?;
    if known.spec.records {
        check_host_fields(&input)?;
    }
    let (capability, operation) = (capability.to_owned(), operation.to_owned());
    Ok(Admitted { sandbox, profile, adapter, capability, operation, input, plugins })
}

/// Another tenant's sandbox answers exactly as a missing one.
pub(crate) async fn find_sandbox(app: &App, context: &OpContext, id: &str) -> ApiResult<SandboxRow> {
    if !Kind::Sandbox.is(id) {
        return Err(ApiError::not_found("sandbox", id));
    }
    Ok(app.store.get_sandbox(&context.tenant, id).await?)
}

/// The profile of a sandbox, as it is now.
pub(crate) fn profile(app: &App, sandbox: &SandboxRow) -> ApiResult<Arc<Profile>> {
    app.profiles.get(&sandbox.tenant, &sandbox.profile).ok_or_else(|| {
        ApiError::new(Code::Unavailable, format!("profile {} is no longer there", sandbox.profile))
            .with(json!({ "part": "profile" }))
    })
}

/// 409 once the sandbox's time is up.
pub(crate) fn not_expired(sandbox: &SandboxRow) -> ApiResult<()> {
    match sandbox.expires_at.filter(|at| *at <= now_ms()) {
        None => Ok(()),
        Some(at) => Err(ApiError::new(Code::SandboxExpired, "the sandbox's time is up; make a new one")
            .with(json!({ "sandbox_id": sandbox.id, "expires_at": rfc3339(at) }))),
    }
}

/// The container that a capability is checked against: the first choice for it, else the first that has it.
fn declared<'p>(profile: &'p Profile, capability: &str) -> ApiResult<&'p Container> {
    let serves = |c: &&Container| c.capabilities.iter().any(|x| x == capability);
    let first_choice = |c: &&Container| c.primary_for.iter().any(|x| x == capability);
    let with = || profile.containers.iter().filter(serves);
    with().find(first_choice).or_else(|| with().next()).ok_or_else(|| {
        let available = profile.capabilities();
        ApiError::new(
            Code::CapabilityNotSupported,
            format!("profile {} does not declare this capability", profile.id),
        )
        .with(json!({ "capability": capability, "available": available }))
    })
}

pub(super) fn no_plugin(name: &str) -> ApiError {
    ApiError::new(Code::PluginError, format!("plugin {name} is not loaded"))
        .with(json!({ "plugin": name, "reason": "missing" }))
}

/// Fields that the host itself reads from every recorded operation, whatever its adapter's schema says.
fn check_host_fields(input: &Value) -> ApiResult<()> {
    let mut errors = Vec::new();
    let mut complain = |field: &str, words: String| errors.push((field.to_owned(), words));
    match &input["wait"] {
        Value::Null => {}
        wait if wait.as_u64().is_some_and(|s| s <= 3600) => {}
        _ => complain("wait", "must be a whole number of seconds from 0 to 3600".to_owned()),
    }
    for field in ["description", "tags"] {
        match &input[field] {
            Value::Null => {}
            Value::String(text) if text.len() <= MAX_NOTE => {}
            _ => complain(field, format!("must be text of at most {MAX_NOTE} bytes")),
        }
    }
    match &input["expect_session"] {
        Value::Null => {}
        seq if seq.is_u64() => {}
        _ => complain("expect_session", "must be the number of a session".to_owned()),
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::fields(&errors)) }
}

/// Puts the call to the chain; what it amended is checked as if the client had sent it.
pub(crate) async fn rules(context: &OpContext, mut admitted: Admitted) -> ApiResult<Admitted> {
    let action = format!("capability.{}.{}", admitted.capability, admitted.operation);
    let input = std::mem::take(&mut admitted.input);
    let (sandbox, profile) = (&admitted.sandbox, &admitted.profile);
    let (input, amended) = ask_rules(&admitted.plugins, context, sandbox, profile, &action, input).await?;
    admitted.input = if amended {
        let input = admitted.spec()?.prepare(input)?;
        if admitted.is_recorded() {
            check_host_fields(&input)?;
        }
        input
    } else {
        input
    };
    Ok(admitted)
}

/// Asks a profile's chain about an action on a sandbox: the input as amended, and whether it was.
pub(super) async fn ask_rules(
    plugins: &Plugins,
    context: &OpContext,
    sandbox: &SandboxRow,
    profile: &Profile,
    action: &str,
    input: Value,
) -> ApiResult<(Value, bool)> {
    let chain =
        plugins.chain(&context.tenant, &profile.rules).ok_or_else(|| no_plugin(&profile.rules.join(", ")))?;
    let admission = Admission {
        principal: principal(context),
        sandbox: Some(SandboxFacts {
            id: sandbox.id.clone(),
            name: sandbox.name.clone(),
            profile: sandbox.profile.clone(),
            labels: sandbox.labels.clone().into_iter().collect(),
            session_seq: sandbox.session_seq,
        }),
        profile: facts(profile),
        action: action.to_owned(),
        input,
        facts: Vec::new(),
    };
    rules::admit(&chain, admission).await
}

/// Who asks, as rules see it.
pub(crate) fn principal(context: &OpContext) -> Principal {
    Principal {
        tenant: context.tenant.as_str().to_owned(),
        key_id: context.key_id.clone(),
        scopes: context.scopes.iter().map(|s| s.as_str().to_owned()).collect(),
    }
}

/// A profile, as plugins see it.
pub(crate) fn facts(profile: &Profile) -> ProfileFacts {
    ProfileFacts { id: profile.id.clone(), capabilities: profile.capabilities() }
}

/// Asks the router. The plugin host has checked that its choice is one of these containers.
pub(crate) async fn route(app: &App, admitted: Admitted) -> ApiResult<Routed> {
    let router = admitted
        .plugins
        .router(&admitted.profile.router)
        .ok_or_else(|| no_plugin(&admitted.profile.router))?;
    let healthy = app.sessions.view(&admitted.sandbox.id).checked.map(|c| c.healthy);
    let container = |c: &Container| ContainerFacts {
        name: c.name.clone(),
        adapter: c.adapter.clone(),
        capabilities: c.capabilities.clone(),
        primary_for: c.primary_for.clone(),
        healthy,
    };
    let request = RouteRequest {
        capability: admitted.capability.clone(),
        operation: admitted.operation.clone(),
        containers: admitted.profile.containers.iter().map(container).collect(),
        profile: facts(&admitted.profile),
        facts: Vec::new(),
    };
    let route = match router.route(&request).await? {
        RouteAnswer::Route(route) => route,
        RouteAnswer::Unroutable { reason } => {
            return Err(ApiError::new(
                Code::PluginError,
                format!("{} found no container: {reason}", router.name()),
            )
            .with(json!({ "plugin": router.name(), "reason": "unroutable" })));
        }
    };
    let mut admitted = admitted;
    if route.adapter != admitted.adapter.plugin.name() {
        // Another container with another adapter: its schema is the one that counts.
        let adapter = admitted.plugins.adapter(&route.adapter).cloned();
        admitted.adapter = adapter.ok_or_else(|| no_plugin(&route.adapter))?;
        let input = std::mem::take(&mut admitted.input);
        admitted.input = admitted.spec()?.prepare(input)?;
    }
    Ok(Routed {
        admitted,
        container: route.container,
        retries: route.retries,
        timeout: route.timeout_ms.map(|ms| Duration::from_millis(ms.into())),
    })
}
