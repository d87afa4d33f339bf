//! The audit log and the last failures, for an operator.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};

use crate::app::App;
use crate::auth::Tenant;
use crate::edge::caller::Admin;
use crate::edge::input;
use crate::edge::openapi::refusals;
use crate::edge::wire::{AuditEntry, AuditPage, FailureList};
use crate::error::{ApiError, ApiResult};
use crate::store::AuditFilter;
use crate::time::from_rfc3339;

use super::page;

refusals!(List: ValidationError, Forbidden);

/// `GET /v1/admin/audit`: calls on lockers' files, deletions, changes of keys and denials by rules, of all tenants.
#[utoipa::path(get, path = "/v1/admin/audit", tag = "admin", params(
    ("tenant" = Option<String>, Query, description = "exactly this tenant's"),
    ("action" = Option<String>, Query, description = "exactly this action"),
    ("since" = Option<String>, Query, description = "RFC 3339: not before this"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "default 50"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
), responses((status = 200, description = "a page of the log, newest first", body = AuditPage), List))]
pub async fn entries(
    State(app): State<Arc<App>>,
    admin: Admin,
    RawQuery(raw): RawQuery,
) -> ApiResult<Json<AuditPage>> {
    let pairs = input::query(raw.as_deref())?;
    let page = page(&pairs)?;
    let tenant = input::find(&pairs, "tenant")
        .map(|name| Tenant::new(name).ok_or_else(|| ApiError::field("tenant", "is not the name of one")))
        .transpose()?;
    let since = input::find(&pairs, "since")
        .map(|text| from_rfc3339(text).ok_or_else(|| ApiError::field("since", "must be an RFC 3339 time")))
        .transpose()?;
    let filter = AuditFilter { tenant, action: input::find(&pairs, "action").map(str::to_owned), since };
    let listing = app.store.list_audit(&admin.system()?, filter, page).await?;
    Ok(Json(AuditPage {
        items: listing.items.into_iter().map(AuditEntry::from).collect(),
        next_cursor: listing.next_cursor.map(|cursor| cursor.encode()),
    }))
}

/// `GET /v1/admin/errors`: the last requests that were answered with a 5xx, as this process remembers them.
#[utoipa::path(get, path = "/v1/admin/errors", tag = "admin", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "default 50"),
), responses((status = 200, description = "the last failures, newest first", body = FailureList), List))]
pub async fn failures(
    State(app): State<Arc<App>>,
    Admin(_operator): Admin,
    RawQuery(raw): RawQuery,
) -> ApiResult<Json<FailureList>> {
    let (limit, _) = input::page(&input::query(raw.as_deref())?)?;
    let last = app.failures.last(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(FailureList { items: last.into_iter().map(Into::into).collect() }))
}
