//! What an operator sees of the audit log and of the last failures.

use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::Failure;
use crate::store::AuditRow;
use crate::time::rfc3339;

/// Who did what to what, and how it ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// `aud_…`
    pub id: String,
    /// When.
    #[schema(example = "2026-11-24T12:00:00.000Z")]
    pub at: String,
    /// Whose request.
    pub tenant: String,
    /// `key_…`; null: anonymous.
    pub key_id: Option<String>,
    /// What was asked.
    #[schema(example = "locker.files.read")]
    pub action: String,
    /// Id of what it was done to.
    pub resource: Option<String>,
    /// `ok`, or the code of an error; null while it goes on, and where Bay ended before it did.
    #[schema(example = "ok")]
    pub outcome: Option<String>,
    /// What else there is to say: the route and the rule of a denial.
    pub detail: Option<String>,
    /// Bay's id of the request.
    pub request_id: String,
    /// Address of the client.
    pub client: Option<String>,
}

/// A page of the audit log, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    /// The entries.
    pub items: Vec<AuditEntry>,
    /// Where the next page begins; null on the last.
    pub next_cursor: Option<String>,
}

/// A request that was answered with a 5xx.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureEntry {
    /// When.
    pub at: String,
    /// Whose request.
    pub tenant: Option<String>,
    /// Bay's id of the request.
    pub request_id: String,
    /// Method and the route's pattern.
    #[schema(example = "POST /v1/sandboxes/{id}/{capability}/{operation}")]
    pub route: String,
    /// The error's code.
    #[schema(example = "plugin_error")]
    pub code: String,
    /// The error's message, its beginning.
    pub message: String,
}

/// The last failures, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureList {
    /// At most 200; gone with the process.
    pub items: Vec<FailureEntry>,
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        Self {
            id: row.id,
            at: rfc3339(row.at),
            tenant: row.tenant.as_str().to_owned(),
            key_id: row.key_id,
            action: row.action,
            resource: row.resource,
            outcome: row.outcome,
            detail: row.detail,
            request_id: row.request_id,
            client: row.client,
        }
    }
}

impl From<Failure> for FailureEntry {
    fn from(failure: Failure) -> Self {
        Self {
            at: rfc3339(failure.at),
            tenant: failure.tenant.map(|tenant| tenant.as_str().to_owned()),
            request_id: failure.request_id,
            route: failure.route,
            code: failure.code.to_owned(),
            message: failure.message,
        }
    }
}
