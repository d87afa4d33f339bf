//! What ends a session or a sandbox, and what clears a failure away.

use std::sync::Arc;

use serde_json::json;

use super::{Asked, permitted};
use crate::app::App;
use crate::auth::{OpContext, SystemContext, Tenant};
use crate::error::{ApiError, ApiResult};
use crate::execution::admit::{find_sandbox, not_expired};
use crate::id::Kind;
use crate::locker::end_files;
use crate::session::remove_locker;
use crate::store::{SandboxRow, SandboxStatus};
use crate::time::now_ms;

/// Asks the rules whether this may be done to a sandbox, its profile still there or not.
async fn ask(app: &App, context: &OpContext, row: &SandboxRow, action: &str) -> ApiResult<()> {
    let profile = app.profiles.get(&row.tenant, &row.profile);
    // There is nothing in the input that could be amended.
    permitted(app, context, Asked::of(row, profile.as_deref()), action, json!({})).await.map(drop)
}

/// Ends the session and forgets a failure; the locker stays. Idempotent, and possible of an expired one.
pub async fn stop(app: &Arc<App>, context: &OpContext, id: &str) -> ApiResult<SandboxRow> {
    let row = find_sandbox(app, context, id).await?;
    ask(app, context, &row, "sandbox.stop").await?;
    app.sessions.stop(&row).await?;
    app.store.clear_failure(&context.tenant, id).await?;
    find_sandbox(app, context, id).await
}

/// Forgets a failure and starts anew, waiting for nothing. One that has not failed is left as it is.
pub async fn recover(app: &Arc<App>, context: &OpContext, id: &str) -> ApiResult<SandboxRow> {
    let row = find_sandbox(app, context, id).await?;
    not_expired(&row)?;
    ask(app, context, &row, "sandbox.recover").await?;
    if row.status(now_ms()) != SandboxStatus::Failed {
        return Ok(row);
    }
    app.store.clear_failure(&context.tenant, id).await?;
    let row = find_sandbox(app, context, id).await?;
    app.sessions.start_in_background(&row);
    Ok(row)
}

/// Deletes. Again: the same answer as long as the tombstone stands.
pub async fn delete(app: &Arc<App>, context: &OpContext, id: &str) -> ApiResult<()> {
    if !Kind::Sandbox.is(id) {
        return Err(ApiError::not_found("sandbox", id));
    }
    let row = app.store.get_sandbox_or_tombstone(&context.tenant, id).await?;
    if row.deleted_at.is_none() {
        ask(app, context, &row, "sandbox.delete").await?;
    }
    let (app, tenant, id) = (Arc::clone(app), context.tenant.clone(), id.to_owned());
    // A client that goes away must not leave half of it undone.
    let removal = tokio::spawn(async move { remove(&app, &tenant, &id).await });
    removal.await.unwrap_or_else(|_| Err(ApiError::internal("a deletion ended without an answer")))
}

/// The tombstone first, then the session, then a managed locker. What fails here is finished by the next start-up; a
/// repeat picks it up, too.
pub async fn remove(app: &Arc<App>, tenant: &Tenant, id: &str) -> ApiResult<()> {
    let deleted = app.store.delete_sandbox(tenant, id, now_ms()).await?;
    app.sessions.remove(&deleted.sandbox, deleted.session.as_ref()).await?;
    let system = SystemContext::for_background();
    while app.store.erase_deleted_executions(&system).await? > 0 {}
    if deleted.locker.is_some() {
        end_files(app, tenant, &deleted.sandbox.locker_id).await?;
        // The volume's name was written by a start that may have ended only just now.
        let pending = app.store.list_pending_removals(&system).await?.lockers;
        for locker in pending.iter().filter(|l| l.id == deleted.sandbox.locker_id) {
            remove_locker(&app.sessions, &system, locker).await?;
        }
    }
    Ok(())
}
