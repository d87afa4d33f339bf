//! Lockers: the persistent storage that sandboxes have at `/workspace`, made, shared, changed and deleted by itself.
//!
//! `files` reads and writes one without starting any of its sandboxes; `usage` knows how much each holds.

pub mod files;
mod usage;

use std::sync::Arc;

use bay_plugin_host::Admission;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::{OpContext, SystemContext, Tenant};
use crate::edge::wire::{ChangeLocker, CreateLocker};
use crate::error::{ApiError, ApiResult, Code};
use crate::execution::admit::{facts, principal};
use crate::id::Kind;
use crate::plugins::Plugins;
use crate::profile::Profile;
use crate::rules;
use crate::session::remove_locker;
use crate::store::{Claim, LockerRow, NewLocker};
use crate::time::now_ms;

pub use usage::LockerUsage;
pub(crate) use usage::{incoming, make_room, writes};

/// One of the caller's; another tenant's answers exactly as a missing one.
pub async fn find(app: &App, context: &OpContext, id: &str) -> ApiResult<LockerRow> {
    if !Kind::Locker.is(id) {
        return Err(ApiError::not_found("locker", id));
    }
    Ok(app.store.get_locker(&context.tenant, id).await?)
}

/// Checks, asks the rules, checks again, and commits. The volume is made by whatever first needs it.
pub async fn create(
    app: &App,
    context: &OpContext,
    body: Value,
    claim: Option<Claim>,
) -> ApiResult<LockerRow> {
    CreateLocker::parse(&body)?;
    let body = ask(app, context, "locker.create", body, None).await?;
    let wanted = CreateLocker::parse(&body)?;
    let new = NewLocker {
        id: Kind::Locker.mint(),
        name: wanted.name.clone(),
        backend: app.driver.backend().to_owned(),
        labels: wanted.labels,
        size_limit_mb: wanted.size_limit_mb,
        created_at: now_ms(),
    };
    let made = app.store.create_locker(&context.tenant, new, claim).await;
    made.map_err(|e| named(e.into(), wanted.name.as_deref()))
}

/// Changes name and labels.
pub async fn update(app: &App, context: &OpContext, id: &str, body: Value) -> ApiResult<LockerRow> {
    let locker = find(app, context, id).await?;
    ChangeLocker::parse(&body)?;
    let body = ask(app, context, "locker.update", body, Some(&locker)).await?;
    let change = ChangeLocker::parse(&body)?.0;
    let name = change.name.clone().flatten();
    let changed = app.store.update_locker(&context.tenant, id, change).await;
    changed.map_err(|e| named(e.into(), name.as_deref()))
}

/// Says which name is taken.
fn named(error: ApiError, name: Option<&str>) -> ApiError {
    match (error.code, name) {
        (Code::AlreadyExists, Some(name)) => {
            ApiError::new(Code::AlreadyExists, "there is a locker of this name already")
                .with(json!({ "resource": "locker", "name": name }))
        }
        _ => error,
    }
}

/// Deletes: the intent first, then what serves its files, then the volume. What fails here is finished by a later
/// pass over what is left undone; a repeat picks it up, too.
pub async fn delete(app: &Arc<App>, context: &OpContext, id: &str) -> ApiResult<()> {
    match find(app, context, id).await {
        Ok(locker) => {
            ask(app, context, "locker.delete", json!({}), Some(&locker)).await?;
        }
        // Deleted before, or never there: the store knows.
        Err(error) if error.code == Code::NotFound && Kind::Locker.is(id) => {}
        Err(error) => return Err(error),
    }
    let (app, tenant, id) = (Arc::clone(app), context.tenant.clone(), id.to_owned());
    // A client that goes away must not leave half of it undone.
    let removal = tokio::spawn(async move { remove(&app, &tenant, &id).await });
    removal.await.unwrap_or_else(|_| Err(ApiError::internal("a deletion ended without an answer")))
}

async fn remove(app: &Arc<App>, tenant: &Tenant, id: &str) -> ApiResult<()> {
    app.store.delete_locker(tenant, id, now_ms()).await?;
    end_files(app, tenant, id).await?;
    app.sessions.usage().forget(id);
    let system = SystemContext::for_background();
    let pending = app.store.list_pending_removals(&system).await?.lockers;
    for locker in pending.iter().filter(|l| l.id == id) {
        remove_locker(&app.sessions, &system, locker).await?;
    }
    Ok(())
}

/// Has the locker of a sandbox measured soon, where it has a limit.
pub(crate) async fn measure_limited(app: &Arc<App>, context: &OpContext, sandbox_id: &str) {
    let tenant = &context.tenant;
    let Ok(sandbox) = app.store.get_sandbox(tenant, sandbox_id).await else { return };
    let locker = app.store.get_locker(tenant, &sandbox.locker_id).await;
    if locker.is_ok_and(|locker| locker.size_limit_mb.is_some()) {
        app.sessions.usage().walk_later(app.sessions.env(), tenant, &sandbox.locker_id);
    }
}

/// Ends what serves this locker's files, so that its volume may go.
pub(crate) async fn end_files(app: &Arc<App>, tenant: &Tenant, locker_id: &str) -> ApiResult<()> {
    let Some(sandbox) = app.store.find_files_sandbox(tenant, locker_id).await? else { return Ok(()) };
    let session = app.store.live_session(tenant, &sandbox.id).await?;
    app.sessions.remove(&sandbox, session.as_ref()).await
}

/// Puts an action on lockers themselves to the rules of the profile that the tenant's sandboxes have by default; the
/// input as amended.
async fn ask(
    app: &App,
    context: &OpContext,
    action: &str,
    input: Value,
    locker: Option<&LockerRow>,
) -> ApiResult<Value> {
    let profile = app.profiles.default_for(&context.tenant);
    let plugins = app.plugins.load_full();
    let (input, _amended) = admit(&plugins, context, profile.as_deref(), action, input, locker).await?;
    Ok(input)
}

/// Runs a chain over an action on a locker.
async fn admit(
    plugins: &Plugins,
    context: &OpContext,
    profile: Option<&Profile>,
    action: &str,
    input: Value,
    locker: Option<&LockerRow>,
) -> ApiResult<(Value, bool)> {
    let names = profile.map_or(&[][..], |profile| &profile.rules);
    let chain = plugins.chain(&context.tenant, names).ok_or_else(|| {
        ApiError::new(Code::PluginError, "a rules plugin of the profile is not loaded")
            .with(json!({ "plugin": names.join(", "), "reason": "missing" }))
    })?;
    let mut known = Vec::new();
    if let Some(locker) = locker {
        known.push(("locker_id".to_owned(), locker.id.clone()));
        known.extend(locker.name.clone().map(|name| ("locker_name".to_owned(), name)));
        known.extend(locker.managed_by.clone().map(|id| ("locker_managed_by".to_owned(), id)));
    }
    let admission = Admission {
        principal: principal(context),
        sandbox: None,
        profile: profile.map(facts).unwrap_or_default(),
        action: action.to_owned(),
        input,
        facts: known,
    };
    rules::admit(&chain, admission).await
}
