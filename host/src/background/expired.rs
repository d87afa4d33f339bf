//! Sandboxes whose time is up.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;

use crate::app::App;
use crate::auth::SystemContext;
use crate::error::ApiError;
use crate::sandbox;
use crate::store::{SandboxRow, StoreError};
use crate::time::now_ms;

/// Most that one run removes or stops, so that a run has an end; the next takes the rest.
const MAX_A_RUN: usize = 1000;
/// How many side by side: removing containers is mostly waiting for them.
const SIDE_BY_SIDE: usize = 8;

/// What became of expired sandboxes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ExpiredReport {
    /// Gone, as if a client had deleted them.
    pub removed: usize,
    /// Sessions ended that had not ended by themselves.
    pub stopped: usize,
    /// Expired, and left for their grace or for the next run.
    pub left: usize,
    /// What could not be done, the first few; tried again by the next run.
    pub errors: Vec<String>,
}

/// Most errors that a report lists.
const MAX_ERRORS: usize = 8;

enum Done {
    Removed,
    Stopped,
}

pub(super) async fn run(
    app: &Arc<App>,
    system: &SystemContext,
    grace: Duration,
    report: &mut ExpiredReport,
) -> Result<(), StoreError> {
    let now = now_ms();
    let grace = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let is_over = move |row: &SandboxRow| row.expires_at.is_some_and(|at| at.saturating_add(grace) <= now);
    let mut due = app.store.list_expired_sandboxes(system, now).await?;
    let all = due.len();
    due.retain(|row| is_over(row) || row.session.is_some());
    due.truncate(MAX_A_RUN);
    report.left = all - due.len();
    let mut done = futures::stream::iter(due)
        .map(|row| async move {
            let end = if is_over(&row) {
                // Prolonged meanwhile it cannot be: what has expired is not extended.
                sandbox::remove(app, &row.tenant, &row.id).await.map(|()| Done::Removed)
            } else {
                app.sessions.stop(&row).await.map(|()| Done::Stopped)
            };
            end.map_err(|error: ApiError| format!("{}: {}", row.id, error.message))
        })
        .buffer_unordered(SIDE_BY_SIDE);
    while let Some(end) = done.next().await {
        match end {
            Ok(Done::Removed) => report.removed += 1,
            Ok(Done::Stopped) => report.stopped += 1,
            Err(error) if report.errors.len() < MAX_ERRORS => report.errors.push(error),
            Err(_) => {}
        }
    }
    Ok(())
}
