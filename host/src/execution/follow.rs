//! The end of executions that nobody waits for any more, asked of the runtime: those that an earlier Bay left running
//! and whose session was taken over (once, when all that it left has been gone through), and those that waited behind
//! others for longer than the host gave them.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::known;
use super::record::{end, merged};
use crate::app::App;
use crate::auth::{OpContext, SystemContext};
use crate::error::{ApiError, ApiResult, Code};
use crate::profile::History;
use crate::store::{Conflict, ExecutionRow, ExecutionStatus, SandboxRow, StoreError};

/// How often it is looked whether everything has been gone through.
const LOOK: Duration = Duration::from_millis(250);
/// Executions followed side by side.
const SIDE_BY_SIDE: usize = 64;
/// How long one is followed: the longest timeout that one can have, and what comes on top.
const LONGEST: Duration = Duration::from_secs(3700);
/// Marks an error that says nothing of how the work ended.
const LOST: &str = "lost";
/// How long a runtime may take to say that it has an execution.
const PROBE: Duration = Duration::from_secs(3);
/// Between two attempts at a runtime that did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits until sessions are taken over, then follows each execution to its end.
pub async fn follow(app: Arc<App>, ends: CancellationToken) {
    while !app.sessions.recovered() {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = ends.cancelled() => return,
        }
    }
    let running = match app.store.list_running_executions(&SystemContext::for_background()).await {
        Ok(running) => running,
        Err(error) => return tracing::warn!(%error, "executions of an earlier Bay are not followed"),
    };
    // What this Bay runs has a flight before it has a record.
    let left = running.into_iter().filter(|row| app.flights.find(&row.id).is_none());
    futures::stream::iter(left).for_each_concurrent(SIDE_BY_SIDE, |row| one(&app, row)).await;
}

async fn one(app: &Arc<App>, row: ExecutionRow) {
    let context = OpContext {
        tenant: row.tenant.clone(),
        key_id: None,
        scopes: Vec::new(),
        grant: None,
        request_id: crate::id::request_id(),
        client_request_id: None,
    };
    let flying = app.flights.begin(&row.id);
    let (keep, outcome) = match app.store.get_sandbox(&context.tenant, &row.sandbox_id).await {
        Ok(sandbox) => {
            let profile = app.profiles.get(&sandbox.tenant, &sandbox.profile);
            let keep = profile.is_some_and(|profile| matches!(profile.history, History::Full));
            (keep, ended(app, &context, &sandbox, &row).await)
        }
        // Deleted: nobody is left to remember it.
        Err(StoreError::NotFound { .. }) => return,
        Err(error) => return tracing::warn!(%error, execution = %row.id, "its end could not be asked for"),
    };
    let lost = matches!(&outcome, Err(error) if error.details["reason"] == LOST);
    let mut finish = end(keep, &outcome);
    if lost {
        finish.status = ExecutionStatus::Lost;
    }
    match app.store.finish_execution(&context.tenant, &row.id, finish).await {
        Ok(()) | Err(StoreError::NotFound { .. } | StoreError::Conflict(Conflict::Finished)) => {}
        Err(error) => tracing::warn!(%error, execution = %row.id, "its end could not be recorded"),
    }
    flying.land(&outcome.map(|(_, value)| value));
}

/// What becomes of a call that the host gave up: its own time counts from when its code starts, so that one that waited
/// behind others may only have begun. None where the runtime does not say that it has it.
pub(super) async fn late(
    app: &App,
    context: &OpContext,
    sandbox_id: &str,
    id: &str,
) -> Option<ApiResult<(u64, Value)>> {
    let row = app.store.get_execution(&context.tenant, sandbox_id, id).await.ok()?;
    let sandbox = app.store.get_sandbox(&context.tenant, sandbox_id).await.ok()?;
    let mut known = known::find(app, sandbox.clone(), &row, "result", json!({})).ok()??;
    known.routed.timeout = Some(PROBE);
    match known.ask(context).await {
        Ok(value) => {
            let seq = known.lease.live.seq;
            Some(Ok((seq, merged(value, id, seq))))
        }
        Err(error) if error.details["running"] == true => {
            drop(known);
            Some(ended(app, context, &sandbox, &row).await)
        }
        Err(_) => None,
    }
}

/// Asks until there is an end, or nobody left who could know.
async fn ended(
    app: &App,
    context: &OpContext,
    sandbox: &SandboxRow,
    row: &ExecutionRow,
) -> ApiResult<(u64, Value)> {
    let until = Instant::now() + LONGEST;
    while Instant::now() < until {
        let known = known::find(app, sandbox.clone(), row, "result", json!({}))?.ok_or_else(lost)?;
        match known.ask(context).await {
            Ok(value) => {
                let seq = known.lease.live.seq;
                return Ok((seq, merged(value, &row.id, seq)));
            }
            Err(error) if error.code == Code::NotFound => return Err(lost()),
            Err(error) if matches!(error.code, Code::Timeout | Code::SessionNotReady | Code::Unavailable) => {
                drop(known);
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(lost())
}

fn lost() -> ApiError {
    ApiError::new(Code::RuntimeError, "what ran this is gone, and nobody saw how it ended")
        .with(json!({ "reason": LOST }))
}
