//! What an operator may have done at once rather than at its time, by name.

use std::sync::Arc;

use super::{Task, expired, prune_keys};
use crate::app::App;
use crate::auth::SystemContext;
use crate::session::{self, AdoptReport};
use crate::time::now_ms;

/// What one task did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskReport {
    /// Which.
    pub task: Task,
    /// How much it removed or ended.
    pub cleaned: usize,
    /// How much it saw whose time has not come.
    pub skipped: usize,
    /// What it could not do; it is tried again at its time.
    pub errors: Vec<String>,
}

/// Runs these tasks in their own order, each once; none where housekeeping runs already.
pub async fn collect(app: &Arc<App>, tasks: &[Task]) -> Option<Vec<TaskReport>> {
    let _alone = app.house.try_lock().ok()?;
    let system = SystemContext::for_background();
    // Orphaned lockers and containers are one pass over what the driver has, made for whichever comes first.
    let mut driver = None;
    let mut reports = Vec::new();
    for &task in Task::ALL.iter().filter(|task| tasks.contains(task)) {
        let mut report = TaskReport { task, cleaned: 0, skipped: 0, errors: Vec::new() };
        match task {
            // Sessions end themselves; here they are only made to look at the time.
            Task::IdleSession => app.sessions.refresh_all(),
            Task::ExpiredSandbox => {
                let mut done = expired::ExpiredReport::default();
                let end = expired::run(app, &system, *app.config.housekeeping.expired_grace, &mut done).await;
                report.cleaned = done.removed + done.stopped;
                report.skipped = done.left;
                report.errors = done.errors;
                report.errors.extend(end.err().map(|error| error.to_string()));
            }
            Task::ExpiredIdempotencyKey => {
                let keep = i64::try_from(app.config.housekeeping.idempotency_keep.as_millis());
                let before = now_ms().saturating_sub(keep.unwrap_or(i64::MAX));
                let mut done = super::HousekeepingReport::default();
                let end = prune_keys(&app.store, &system, before, &mut done).await;
                report.cleaned = done.idempotency_keys;
                report.errors.extend(end.err().map(|error| error.to_string()));
            }
            Task::OrphanLocker | Task::OrphanContainer => {
                let mut pass = match driver.take() {
                    Some(pass) => pass,
                    None => session::reconcile(&app.sessions, &system).await.unwrap_or_else(|error| {
                        AdoptReport { errors: vec![error.to_string()], ..AdoptReport::default() }
                    }),
                };
                // Of either kind, and each told once: the second may not have been asked for.
                report.errors = std::mem::take(&mut pass.errors);
                if task == Task::OrphanLocker {
                    report.cleaned = pass.lockers;
                } else {
                    report.cleaned = pass.strangers + pass.finished + pass.lost;
                    report.skipped = pass.reported;
                }
                driver = Some(pass);
            }
        }
        reports.push(report);
    }
    Some(reports)
}
