//! Files of a locker, read and written without starting any of its sandboxes.
//!
//! ```text
//!  locker ──▶ input ──▶ rules ──▶ room ──▶ audit ──▶ a session that has the locker ──▶ adapter ──▶ Ship ──▶ audit
//! ```
//!
//! The work is Ship's own, as the sandbox's user: in the session of a sandbox that runs and has the locker, else in a
//! session of a sandbox of Bay's own that has this locker, no network and no user code, and is kept warm for a minute
//! ([`files_only`]). Its image is that of the sandbox that last had the locker, else of the tenant's default profile;
//! rules are those of the same profile. Bay's own process never opens a locker.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::usage::{incoming, make_room};
use super::{admit, find};
use crate::app::App;
use crate::audit;
use crate::auth::{OpContext, SystemContext};
use crate::catalog::Operation;
use crate::error::{ApiError, ApiResult, Code};
use crate::execution::admit::{Admitted, Routed};
use crate::execution::{Recorded, dispatch};
use crate::id::Kind;
use crate::plugins::{Adapter, Plugins};
use crate::profile::{FILESYSTEM, Profile, files_only};
use crate::runtime::CallerRequest;
use crate::session::{Lease, SessionError};
use crate::store::{LockerRow, MAX_FILES_OF_TENANT, SandboxRow};
use crate::time::now_ms;

/// What a caller is told to wait when a start takes longer than its budget.
const START_RETRY: Duration = Duration::from_secs(2);
/// How often the way to the runtime is tried again before anything was sent.
const RETRIES: u32 = 2;
/// What the runtime calls itself whose files these are.
const SHIP: &str = "ship";

/// What can be done to a locker's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOperation {
    /// Of `GET …/filesystem/files`.
    Read,
    /// Of `PUT …/filesystem/files`.
    Write,
    /// Of `GET …/filesystem/directories`.
    List,
    /// Of `DELETE …/filesystem/files`.
    Delete,
}

impl FileOperation {
    /// The operation of the `filesystem` capability that it is.
    fn operation(self) -> &'static str {
        match self {
            Self::Read => "read_file",
            Self::Write => "write_file",
            Self::List => "list_dir",
            Self::Delete => "delete_file",
        }
    }

    /// What rules and the audit log know it by.
    pub fn action(self) -> &'static str {
        match self {
            Self::Read => "locker.files.read",
            Self::Write => "locker.files.write",
            Self::List => "locker.files.list",
            Self::Delete => "locker.files.delete",
        }
    }
}

/// One call, as the edge understood it.
pub struct FileCall {
    /// `lkr_…`, as the client wrote it.
    pub locker_id: String,
    /// What to do.
    pub operation: FileOperation,
    /// A JSON object, unchecked.
    pub input: Value,
    /// Where it came from, for the audit log.
    pub client: Option<IpAddr>,
}

/// Takes a call all the way. It goes on when its client goes away, and is in the audit log either way.
pub async fn call(app: &Arc<App>, context: &OpContext, call: FileCall) -> ApiResult<Value> {
    let slot = dispatch::slot(app, &context.tenant)?;
    let entry = audit::Entry {
        action: call.operation.action(),
        resource: Some(call.locker_id.clone()).filter(|id| Kind::Locker.is(id)),
        client: call.client,
        detail: None,
    };
    let entry = audit::begin(app, context, entry).await?;
    let (app, context) = (Arc::clone(app), context.clone());
    let work = tokio::spawn(async move {
        let _slot = slot;
        let result = work(&app, &context, call).await;
        audit::finish(&app, &context, &entry, &result).await;
        result
    });
    work.await.unwrap_or_else(|_| Err(ApiError::internal("a call on a locker ended without an answer")))
}

async fn work(app: &Arc<App>, context: &OpContext, call: FileCall) -> ApiResult<Value> {
    let locker = &find(app, context, &call.locker_id).await?;
    let operation = call.operation.operation();
    let plugins = app.plugins.load_full();
    let base = profile(app, context, locker).await?;
    let profile = files_only(&base).ok_or_else(no_profile)?;
    let adapter = adapter(&plugins, &profile)?;
    let input = spec(&adapter, operation)?.prepare(call.input)?;
    let action = call.operation.action();
    let (input, amended) = admit(&plugins, context, Some(&profile), action, input, Some(locker)).await?;
    let input = if amended { spec(&adapter, operation)?.prepare(input)? } else { input };
    if call.operation == FileOperation::Write {
        make_room(&app.sessions, &context.tenant, &locker.id, incoming(&input, None)).await?;
    }
    let (sandbox, container, lease) = session(app, context, locker, &base, &profile).await?;
    let admitted = Admitted::elsewhere(sandbox, Arc::new(profile), adapter, plugins, operation, input);
    let routed = Routed { admitted, container, retries: RETRIES, timeout: None };
    // File operations answer with JSON: nobody waits for a stream.
    let (forward, _nobody) = oneshot::channel();
    let client = dispatch::Client { caller: CallerRequest::default(), forward, events: false };
    let answered = dispatch::adapt(context, &routed, &Recorded::Unrecorded, &lease, client).await;
    answered.map_err(|error| of_locker(error, locker))
}

/// The profile by which the locker is served: that of the sandbox that last had it, where the tenant still has that,
/// else the tenant's default, else whichever of its profiles serves files.
async fn profile(app: &App, context: &OpContext, locker: &LockerRow) -> ApiResult<Arc<Profile>> {
    let tenant = &context.tenant;
    let last = app.store.last_profile_of_locker(tenant, &locker.id).await?;
    let last = last.and_then(|id| app.profiles.get(tenant, &id));
    let candidates =
        last.into_iter().chain(app.profiles.default_for(tenant)).chain(app.profiles.list(tenant));
    let mut serving = candidates.filter(|profile| profile.offers(FILESYSTEM));
    serving.next().ok_or_else(no_profile)
}

fn no_profile() -> ApiError {
    ApiError::new(Code::Unavailable, "no profile that this tenant may use serves files")
        .with(json!({ "part": "profile" }))
}

fn adapter(plugins: &Plugins, profile: &Profile) -> ApiResult<Arc<Adapter>> {
    let name = profile.containers.first().map(|c| c.adapter.as_str()).unwrap_or_default();
    plugins.adapter(name).cloned().ok_or_else(|| {
        ApiError::new(Code::PluginError, format!("plugin {name} is not loaded"))
            .with(json!({ "plugin": name, "reason": "missing" }))
    })
}

fn spec<'a>(adapter: &'a Adapter, operation: &str) -> ApiResult<&'a Operation> {
    adapter.catalog.get(FILESYSTEM, operation).ok_or_else(|| {
        ApiError::new(Code::CapabilityNotSupported, "what serves this locker's files has no such operation")
            .with(json!({ "capability": FILESYSTEM, "available": adapter.catalog.names(FILESYSTEM) }))
    })
}

/// A session that has the locker, and the container in it that serves files.
async fn session(
    app: &Arc<App>,
    context: &OpContext,
    locker: &LockerRow,
    base: &Profile,
    profile: &Profile,
) -> ApiResult<(SandboxRow, String, Lease)> {
    let wanted = profile.containers.first().map(|c| c.adapter.clone()).unwrap_or_default();
    for sandbox in app.store.list_ready_with_locker(&context.tenant, &locker.id).await? {
        let Some(lease) = app.sessions.ready(&sandbox.id) else { continue };
        let serves = lease.live.containers.iter().find(|c| {
            c.adapter == wanted
                && c.meta.runtime.name == SHIP
                && c.capabilities.iter().any(|x| x == FILESYSTEM)
        });
        if let Some(name) = serves.map(|c| c.name.clone()) {
            return Ok((sandbox, name, lease));
        }
    }
    let sandbox = app.store.take_files_sandbox(&context.tenant, &locker.id, &base.id, now_ms()).await?;
    let budget = *app.config.sessions.start_wait;
    let mut started = app.sessions.ensure_running(&sandbox, budget).await;
    if is_full(&started) && make_place(app, context).await? {
        started = app.sessions.ensure_running(&sandbox, budget).await;
    }
    let lease = started.map_err(|error| not_started(error, locker))?;
    let name = lease.live.containers.first().map(|c| c.name.clone()).unwrap_or_default();
    Ok((sandbox, name, lease))
}

fn is_full(started: &Result<Lease, SessionError>) -> bool {
    matches!(started, Err(SessionError::Failed(error)) if error.code == Code::Overloaded)
}

/// Ends the one that nobody uses for the longest time: of this tenant where it has one, and of no other where it has as
/// many as a tenant may have. Whether there was one.
async fn make_place(app: &Arc<App>, context: &OpContext) -> ApiResult<bool> {
    let running = app.store.list_files_sandboxes(&SystemContext::for_background()).await?;
    let is_own = |s: &SandboxRow| s.tenant == context.tenant;
    let own_are_full = running.iter().filter(|s| is_own(s)).count() >= MAX_FILES_OF_TENANT;
    let unused =
        running.into_iter().filter(|s| (is_own(s) || !own_are_full) && !app.sessions.is_in_use(&s.id));
    let oldest = unused
        .filter_map(|s| Some(((s.tenant != context.tenant, app.sessions.last_used(&s.id)?), s)))
        .min_by_key(|(order, _)| *order);
    let Some((_, sandbox)) = oldest else { return Ok(false) };
    app.sessions.stop(&sandbox).await?;
    Ok(true)
}

fn not_started(error: SessionError, locker: &LockerRow) -> ApiError {
    match error {
        SessionError::StillStarting => {
            of_locker(ApiError::new(Code::SessionNotReady, "").after(START_RETRY), locker)
        }
        SessionError::Failed(error) => of_locker(error, locker),
        SessionError::Overloaded => ApiError::new(Code::Overloaded, "too many calls wait for this locker")
            .after(Duration::from_secs(1)),
    }
}

/// An error as the client of a locker understands it, who knows of no sandbox.
fn of_locker(error: ApiError, locker: &LockerRow) -> ApiError {
    if error.code != Code::SessionNotReady {
        return error;
    }
    let wait = error.retry_after.unwrap_or(START_RETRY);
    let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    ApiError::new(Code::SessionNotReady, "what serves this locker's files is still starting; try again")
        .with(json!({ "locker_id": locker.id, "retry_after_ms": ms }))
        .after(wait)
}
