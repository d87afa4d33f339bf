//! What keeps a sandbox as a client wants it: its name, labels, expiry and idle time.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Asked, LAST_MOMENT, permitted};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::wire::{ExtendTtl as ExtendBody, UpdateSandbox};
use crate::error::{ApiError, ApiResult, Code};
use crate::execution::admit::{self, find_sandbox, not_expired};
use crate::profile::Profile;
use crate::store::{Claim, ExtendTtl, Millis, SandboxPatch, SandboxRow, StoreError};
use crate::time::{now_ms, rfc3339};

/// A sandbox whose time is not up, with its profile.
async fn living(app: &App, context: &OpContext, id: &str) -> ApiResult<(SandboxRow, Arc<Profile>)> {
    let row = find_sandbox(app, context, id).await?;
    not_expired(&row)?;
    let profile = admit::profile(app, &row)?;
    Ok((row, profile))
}

/// It expired between the look at it and the write: said as if it had been seen before.
fn about(row: &SandboxRow) -> impl Fn(StoreError) -> ApiError {
    |error| {
        let mut error = ApiError::from(error);
        if error.code == Code::SandboxExpired {
            error.details["sandbox_id"] = json!(row.id);
        }
        error
    }
}

/// The latest moment at which this sandbox may end.
fn latest(app: &App, row: &SandboxRow, profile: &Profile) -> Millis {
    let longest =
        app.profiles.max_ttl(&row.tenant, profile).and_then(|max| i64::try_from(max.as_millis()).ok());
    longest.map_or(LAST_MOMENT, |max| row.created_at.saturating_add(max).min(LAST_MOMENT))
}

/// Applies a merge patch.
pub async fn update(app: &App, context: &OpContext, id: &str, body: Value) -> ApiResult<SandboxRow> {
    let (row, profile) = living(app, context, id).await?;
    let checked = patch(app, &body, &row, &profile)?;
    let asked = Asked::of(&row, Some(&profile));
    let (body, amended) = permitted(app, context, asked, "sandbox.update", body).await?;
    let checked = if amended { patch(app, &body, &row, &profile)? } else { checked };
    let updated =
        app.store.update_sandbox(&context.tenant, id, checked, now_ms()).await.map_err(about(&row))?;
    app.sessions.refresh(id);
    Ok(updated)
}

/// The patch as the store takes it, with what only the profile can say of it.
fn patch(app: &App, body: &Value, row: &SandboxRow, profile: &Profile) -> ApiResult<SandboxPatch> {
    let wanted = UpdateSandbox::parse(body)?;
    let mut errors = Vec::new();
    let mut complain = |field: &str, message: String| errors.push((field.to_owned(), message));
    match wanted.expires_at {
        Some(None) if app.profiles.max_ttl(&row.tenant, profile).is_some() => {
            complain("expires_at", "no sandbox may live for ever here".to_owned());
        }
        Some(Some(at)) if at <= now_ms() => {
            complain("expires_at", "is not in the future; DELETE ends a sandbox now".to_owned());
        }
        Some(Some(at)) if at > latest(app, row, profile) => {
            let latest = rfc3339(latest(app, row, profile));
            complain("expires_at", format!("this sandbox may live until {latest} at most"));
        }
        Some(_) | None => {}
    }
    if let Some(Some(seconds)) = wanted.idle_timeout {
        match profile.idle_timeout_max.map(|max| max.as_secs()) {
            None => complain("idle_timeout", "the profile does not let clients choose it".to_owned()),
            Some(max) if seconds > max => {
                complain("idle_timeout", format!("the profile allows at most {max} seconds"));
            }
            Some(_) => {}
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::fields(&errors));
    }
    let milliseconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
    Ok(SandboxPatch {
        name: wanted.name,
        labels: wanted.labels,
        clear_labels: wanted.clear_labels,
        expires_at: wanted.expires_at,
        idle_timeout_ms: wanted.idle_timeout.map(|seconds| seconds.map(milliseconds)),
    })
}

/// Lets it live longer: however many ask at once, all of it adds up.
pub async fn extend_ttl(
    app: &App,
    context: &OpContext,
    id: &str,
    body: Value,
    claim: Option<Claim>,
) -> ApiResult<SandboxRow> {
    let wanted = ExtendBody::parse(&body)?;
    let (row, profile) = living(app, context, id).await?;
    let asked = Asked::of(&row, Some(&profile));
    let (body, amended) = permitted(app, context, asked, "sandbox.extend_ttl", body).await?;
    let wanted = if amended { ExtendBody::parse(&body)? } else { wanted };
    let by = i64::try_from(wanted.extend_by).unwrap_or(i64::MAX).saturating_mul(1000);
    let latest = latest(app, &row, &profile);
    let longer = ExtendTtl { by, latest, at: now_ms(), claim };
    let extended = app.store.extend_sandbox(&context.tenant, id, longer).await.map_err(about(&row))?;
    app.sessions.refresh(id);
    Ok(extended)
}

/// Puts its idle time off; starts nothing.
pub async fn keepalive(app: &App, context: &OpContext, id: &str) -> ApiResult<SandboxRow> {
    let (row, profile) = living(app, context, id).await?;
    permitted(app, context, Asked::of(&row, Some(&profile)), "sandbox.keepalive", json!({})).await?;
    app.sessions.touch(id);
    app.store.touch_sandbox(&context.tenant, id, now_ms(), None).await?;
    find_sandbox(app, context, id).await
}
