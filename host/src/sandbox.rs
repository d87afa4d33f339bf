//! Making and deleting sandboxes: rules, the store's one transaction, and what has to go when one goes.

use std::sync::Arc;

use bay_plugin_host::Admission;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::{OpContext, SystemContext};
use crate::edge::wire::{CreateSandbox, Start};
use crate::error::{ApiError, ApiResult, Code};
use crate::execution::admit::{facts, principal};
use crate::id::Kind;
use crate::locker::end_files;
use crate::profile::Profile;
use crate::rules;
use crate::session::remove_locker;
use crate::store::{Env, LockerChoice, NewLocker, NewSandbox, SandboxRow};
use crate::time::now_ms;

/// A sandbox that was just made, and how much of its start the client wants to wait for.
pub struct Created {
    /// The row.
    pub row: SandboxRow,
    /// As asked.
    pub start: Start,
}

/// Checks, asks the rules, checks again, and commits. Touches no driver.
pub async fn create(app: &Arc<App>, context: &OpContext, body: Value) -> ApiResult<Created> {
    let wanted = CreateSandbox::parse(&body)?;
    let profile = profile(app, context, wanted.profile.as_deref())?;
    let plugins = app.plugins.load_full();
    let chain = plugins.chain(&context.tenant, &profile.rules).ok_or_else(|| {
        ApiError::new(Code::PluginError, "a rules plugin of the profile is not loaded")
            .with(json!({ "plugin": profile.rules.join(", "), "reason": "missing" }))
    })?;
    let admission = Admission {
        principal: principal(context),
        sandbox: None,
        profile: facts(&profile),
        action: "sandbox.create".to_owned(),
        input: body,
        facts: Vec::new(),
    };
    let (body, amended) = rules::admit(&chain, admission).await?;
    // What rules made of it is checked as if the client had sent it; they choose another profile only among
    // those that the tenant may use.
    let (wanted, profile) = if amended {
        let wanted = CreateSandbox::parse(&body)?;
        let profile = self::profile(app, context, wanted.profile.as_deref())?;
        (wanted, profile)
    } else {
        (wanted, profile)
    };
    let expires_at = expiry(&profile, wanted.ttl)?;
    let now = now_ms();
    let new = NewSandbox {
        id: Kind::Sandbox.mint(),
        profile: profile.id.clone(),
        name: wanted.name,
        labels: wanted.labels,
        env: Env(wanted.env),
        capabilities: profile.capabilities(),
        created_at: now,
        expires_at,
    };
    let locker = match (wanted.locker_id, wanted.locker) {
        (Some(id), _) => LockerChoice::Existing(id),
        (None, Some(name)) => LockerChoice::Named(name),
        (None, None) => LockerChoice::Managed(NewLocker {
            id: Kind::Locker.mint(),
            name: None,
            backend: app.driver.backend().to_owned(),
            labels: Default::default(),
            size_limit_mb: None,
            created_at: now,
        }),
    };
    let (row, _locker) = app.store.create_sandbox(&context.tenant, new, locker).await?;
    Ok(Created { row, start: wanted.start })
}

fn profile(app: &App, context: &OpContext, id: Option<&str>) -> ApiResult<Arc<Profile>> {
    match id {
        Some(id) => app.profiles.get(&context.tenant, id),
        None => app.profiles.default_for(&context.tenant),
    }
    .ok_or_else(|| ApiError::not_found("profile", id.unwrap_or("default")))
}

/// When it expires: never, unless the client or the profile says so.
fn expiry(profile: &Profile, ttl: Option<u64>) -> ApiResult<Option<i64>> {
    let max = profile.max_ttl.map(|max| max.as_secs());
    let seconds = match (ttl, max) {
        (Some(ttl), Some(max)) if ttl > max => {
            return Err(ApiError::field("ttl", format!("the profile allows at most {max} seconds")));
        }
        (Some(ttl), _) => ttl,
        (None, Some(max)) => max,
        (None, None) => return Ok(None),
    };
    let ms = i64::try_from(seconds).ok().and_then(|s| s.checked_mul(1000));
    Ok(ms.and_then(|ms| now_ms().checked_add(ms)))
}

/// Deletes: the tombstone first, then the session, then a managed locker. What fails here is finished by the
/// next start-up; a repeat picks it up, too.
pub async fn delete(app: &Arc<App>, context: &OpContext, id: &str) -> ApiResult<()> {
    if !Kind::Sandbox.is(id) {
        return Err(ApiError::not_found("sandbox", id));
    }
    let deleted = app.store.delete_sandbox(&context.tenant, id, now_ms()).await?;
    app.sessions.remove(&deleted.sandbox, deleted.session.as_ref()).await?;
    let system = SystemContext::for_background();
    while app.store.erase_deleted_executions(&system).await? > 0 {}
    if deleted.locker.is_some() {
        end_files(app, context, &deleted.sandbox.locker_id).await?;
        // The volume's name was written by a start that may have ended only just now.
        let pending = app.store.list_pending_removals(&system).await?.lockers;
        for locker in pending.iter().filter(|l| l.id == deleted.sandbox.locker_id) {
            remove_locker(&app.sessions, &system, locker).await?;
        }
    }
    Ok(())
}
