//! When what has no task is settled: before the first request where the driver answers, else as soon as it does; and
//! again whenever something had to be left undone.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::adopt::{AdoptReport, pass};
use super::registry::Sessions;
use crate::auth::SystemContext;
use crate::store::StoreError;
use crate::time::now_ms;

/// How often it is looked for when nothing is known to be left.
const EVERY: Duration = Duration::from_secs(600);
/// Pause before a pass that has something to do; doubled while it does not get done.
const FIRST: Duration = Duration::from_millis(250);
/// Longest such pause: how late a driver that came back is noticed.
const LONGEST: Duration = Duration::from_secs(5);

/// How long a start waits for the first pass: enough where containers answer at once, and few enough that one that
/// hangs does not keep all others from being served.
const BEFORE_SERVING: Duration = Duration::from_secs(2);

/// Runs once, before the first request is taken. Every live session in the store is settled, or noted as unsettled:
/// then calls on it are refused until [`recover`] has settled it.
pub async fn adopt(sessions: &Arc<Sessions>, system: &SystemContext) -> Result<AdoptReport, StoreError> {
    let store = &sessions.env().store;
    let executions = store.mark_executions_lost(system, now_ms(), "Bay was restarted meanwhile").await?;
    for session in store.list_live_sessions(system).await? {
        sessions.unfinished().unsettle(&session.sandbox_id);
    }
    // Ended anywhere, a pass leaves nothing that the next one does not find.
    let report = match tokio::time::timeout(BEFORE_SERVING, pass(sessions, system)).await {
        Ok(report) => report?,
        Err(_) => AdoptReport {
            errors: vec!["not done yet; it goes on while requests are served".to_owned()],
            ..AdoptReport::default()
        },
    };
    if !report.errors.is_empty() {
        sessions.unfinished().wake();
    }
    Ok(AdoptReport { executions, ..report })
}

/// One pass now, whatever the time. Idempotent, and harmless beside another.
pub async fn reconcile(sessions: &Arc<Sessions>, system: &SystemContext) -> Result<AdoptReport, StoreError> {
    pass(sessions, system).await
}

/// Goes on with it until told to end.
pub async fn recover(sessions: Arc<Sessions>, ends: CancellationToken) {
    let system = SystemContext::for_background();
    let mut pause = EVERY;
    let mut said = Vec::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = sessions.unfinished().woken() => {
                // A moment, so that what comes in a crowd is dealt with in one pass.
                pause = pause.min(FIRST);
                tokio::time::sleep(FIRST).await;
            }
            () = ends.cancelled() => return,
        }
        let errors = match pass(&sessions, &system).await {
            Ok(AdoptReport { errors, .. }) if !errors.is_empty() => errors,
            Ok(report) => {
                // What is only told of has been told of.
                if (AdoptReport { reported: 0, ..report.clone() }) != AdoptReport::default() {
                    tracing::info!(?report, "finished what had been left undone");
                }
                pause = EVERY;
                said.clear();
                continue;
            }
            Err(error) => vec![error.to_string()],
        };
        // Once, not every few seconds, while it stays as it is.
        if errors != said {
            tracing::warn!(?errors, "something is left undone; trying again");
            said = errors;
        }
        pause = if pause == EVERY { FIRST } else { (pause * 2).min(LONGEST) };
    }
}
