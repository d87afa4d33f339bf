//! What clients do to sandboxes themselves: each asks the rules, then the store in one transaction, then whatever has to
//! follow. Making one is here; `change` has what keeps it alive, `end` what stops and removes it.

mod change;
mod end;

use std::sync::Arc;

use bay_plugin_host::{Admission, ProfileFacts, SandboxFacts};
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::OpContext;
use crate::config::Span;
use crate::edge::wire::{CreateSandbox, Start};
use crate::error::{ApiError, ApiResult, Code};
use crate::execution::admit::{facts, principal};
use crate::id::Kind;
use crate::profile::Profile;
use crate::rules;
use crate::store::{Claim, Env, LockerChoice, Millis, NewLocker, NewSandbox, SandboxRow};
use crate::time::now_ms;

pub use change::{extend_ttl, keepalive, update};
pub use end::{delete, recover, remove, stop};

/// The last moment that a date can name: no TTL adds up past it.
const LAST_MOMENT: Millis = 253_402_300_799_999;

/// A sandbox that was just made, and how much of its start the client wants to wait for.
pub struct Created {
    /// The row.
    pub row: SandboxRow,
    /// As asked.
    pub start: Start,
}

/// Checks, asks the rules, checks again, and commits. Touches no driver.
pub async fn create(
    app: &Arc<App>,
    context: &OpContext,
    body: Value,
    claim: Option<Claim>,
) -> ApiResult<Created> {
    let wanted = CreateSandbox::parse(&body)?;
    let profile = profile(app, context, wanted.profile.as_deref())?;
    let (body, amended) =
        permitted(app, context, Asked::of_profile(&profile), "sandbox.create", body).await?;
    // What rules made of it is checked as if the client had sent it; they choose another profile only among
    // those that the tenant may use.
    let (wanted, profile) = if amended {
        let wanted = CreateSandbox::parse(&body)?;
        let profile = self::profile(app, context, wanted.profile.as_deref())?;
        (wanted, profile)
    } else {
        (wanted, profile)
    };
    let now = now_ms();
    let expires_at = expiry(app.profiles.max_ttl(&context.tenant, &profile), wanted.ttl, now)?;
    let new = NewSandbox {
        id: Kind::Sandbox.mint(),
        profile: profile.id.clone(),
        name: wanted.name,
        labels: wanted.labels,
        env: Env(wanted.env),
        capabilities: profile.capabilities(),
        created_at: now,
        expires_at,
        claim,
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

/// When it expires: never, unless the client, the tenant or the profile says so.
fn expiry(max: Option<Span>, ttl: Option<u64>, now: Millis) -> ApiResult<Option<i64>> {
    let max = max.map(|max| max.as_secs());
    let seconds = match (ttl, max) {
        (Some(ttl), Some(max)) if ttl > max => {
            return Err(ApiError::field("ttl", format!("at most {max} seconds are allowed here")));
        }
        (Some(ttl), _) => ttl,
        (None, Some(max)) => max,
        (None, None) => return Ok(None),
    };
    let ms = i64::try_from(seconds).ok().and_then(|s| s.checked_mul(1000));
    Ok(ms.and_then(|ms| now.checked_add(ms)))
}

/// What a rule gets to see of a sandbox and its profile.
struct Asked<'a> {
    sandbox: Option<SandboxFacts>,
    profile: ProfileFacts,
    rules: &'a [String],
}

impl<'a> Asked<'a> {
    fn of_profile(profile: &'a Profile) -> Self {
        Self { sandbox: None, profile: facts(profile), rules: &profile.rules }
    }

    /// Of a sandbox that exists. Where its profile does not any more only the tenant's own rules are left, and it can
    /// still be stopped and deleted.
    fn of(row: &SandboxRow, profile: Option<&'a Profile>) -> Self {
        let gone = || ProfileFacts { id: row.profile.clone(), capabilities: row.capabilities.clone() };
        Self {
            sandbox: Some(SandboxFacts {
                id: row.id.clone(),
                name: row.name.clone(),
                profile: row.profile.clone(),
                labels: row.labels.clone().into_iter().collect(),
                session_seq: row.session_seq,
            }),
            profile: profile.map_or_else(gone, facts),
            rules: profile.map_or(&[], |profile| &profile.rules),
        }
    }
}

/// Puts an action to the chain; the input as amended, and whether it was.
async fn permitted(
    app: &App,
    context: &OpContext,
    asked: Asked<'_>,
    action: &str,
    input: Value,
) -> ApiResult<(Value, bool)> {
    let chain = app.plugins.load_full().chain(&context.tenant, asked.rules).ok_or_else(|| {
        ApiError::new(Code::PluginError, "a rules plugin of the profile is not loaded")
            .with(json!({ "plugin": asked.rules.join(", "), "reason": "missing" }))
    })?;
    let admission = Admission {
        principal: principal(context),
        sandbox: asked.sandbox,
        profile: asked.profile,
        action: action.to_owned(),
        input,
        facts: Vec::new(),
    };
    rules::admit(&chain, admission).await
}
