//! Who did what: the audit log, which the store keeps, and the last failures, which memory keeps.
//!
//! Calls on lockers' files are written down before they begin and again when they have ended. What changes or ends
//! something for good, and what rules deny, is written down at the edge as it is answered (see
//! `edge::middleware::audit`). Nothing that a client sent is in either, but for ids.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::app::App;
use crate::auth::{OpContext, Tenant};
use crate::error::{ApiError, ApiResult};
use crate::store::{NewAudit, StoreError};
use crate::time::now_ms;

/// How long entries are kept, in milliseconds: 90 days.
pub const KEEP_MS: i64 = 90 * 24 * 3600 * 1000;
/// Most entries kept, some hundred bytes each.
pub const KEEP: usize = 500_000;
/// Failures remembered.
const MAX_FAILURES: usize = 200;
/// Longest message remembered of one, in bytes.
const MAX_MESSAGE: usize = 512;

/// Something worth writing down.
#[derive(Debug)]
pub struct Entry {
    /// A namespaced string, as rules know it.
    pub action: &'static str,
    /// Id of what it is done to.
    pub resource: Option<String>,
    /// Where it came from.
    pub client: Option<IpAddr>,
    /// What else there is to say.
    pub detail: Option<String>,
}

/// An entry that has no end yet.
pub struct Begun {
    id: String,
}

fn new(context: &OpContext, entry: Entry, outcome: Option<&str>) -> NewAudit {
    NewAudit {
        at: now_ms(),
        key_id: context.key_id.clone(),
        action: entry.action.to_owned(),
        resource: entry.resource,
        outcome: outcome.map(str::to_owned),
        detail: entry.detail,
        request_id: context.request_id.clone(),
        client: entry.client.map(|ip| ip.to_canonical().to_string()),
    }
}

/// The outcome in the log.
pub fn outcome<T>(result: &ApiResult<T>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.code.as_str(),
    }
}

/// Writes an entry before what it is about. Without it nothing is done.
pub async fn begin(app: &App, context: &OpContext, entry: Entry) -> Result<Begun, StoreError> {
    let id = app.store.record_audit(&context.tenant, new(context, entry, None)).await?;
    Ok(Begun { id })
}

/// Writes how it ended. A store that fails now changes nothing of what was done: the entry says that it began.
pub async fn finish<T>(app: &App, context: &OpContext, begun: &Begun, result: &ApiResult<T>) {
    if let Err(error) = app.store.finish_audit(&context.tenant, &begun.id, outcome(result)).await {
        tracing::error!(%error, entry = %begun.id, "an end could not be written into the audit log");
    }
}

/// Writes an entry about what has been done.
pub async fn record(app: &App, context: &OpContext, entry: Entry, outcome: &str) {
    let action = entry.action;
    let new = new(context, entry, Some(outcome));
    if let Err(error) = app.store.record_audit(&context.tenant, new).await {
        tracing::error!(%error, action, request_id = %context.request_id, "could not be written into the audit log");
    }
}

/// A request that was answered with a 5xx.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When, Unix milliseconds.
    pub at: i64,
    /// Whose; null where nobody was recognised.
    pub tenant: Option<Tenant>,
    /// Bay's id of the request.
    pub request_id: String,
    /// Method and the route's pattern.
    pub route: String,
    /// The answer's error.
    pub code: &'static str,
    /// The answer's words, their beginning.
    pub message: String,
}

/// The last failures, in memory.
#[derive(Debug, Default)]
pub struct Failures(Mutex<VecDeque<Failure>>);

impl Failures {
    /// Remembers one, and forgets the oldest where there are too many.
    pub fn push(&self, tenant: Option<Tenant>, request_id: String, route: String, error: &ApiError) {
        let mut message = error.message.clone();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        let failure = Failure { at: now_ms(), tenant, request_id, route, code: error.code.as_str(), message };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == MAX_FAILURES {
            all.pop_front();
        }
        all.push_back(failure);
    }

    /// Newest first.
    pub fn last(&self, limit: usize) -> Vec<Failure> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_last_failures_are_few_and_short() {
        let failures = Failures::default();
        for n in 0..MAX_FAILURES + 5 {
            let error = ApiError::new(Code::InternalError, "ä".repeat(MAX_MESSAGE));
            failures.push(None, n.to_string(), "GET /x".to_owned(), &error);
        }
        let last = failures.last(usize::MAX);
        assert_eq!(last.len(), MAX_FAILURES);
        assert_eq!(last[0].request_id, (MAX_FAILURES + 4).to_string());
        assert!(last.iter().all(|f| f.message.len() <= MAX_MESSAGE));
    }
}
