//! What a tenant has, and what it may have.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Ids;
use crate::app::App;
use crate::auth::Tenant;
use crate::edge::caller::Admin;
use crate::edge::openapi::refusals;
use crate::error::{ApiError, ApiResult};
use crate::store::Quota;

refusals!(Get: Forbidden, NotFound);

/// A tenant's usage.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantUsage {
    /// As in the path.
    #[schema(example = "acme")]
    tenant: String,
    /// By quota: `sandboxes`, `running`, `starting`, `executions`, `streams`, `lockers`, `locker_mb`, `history_bytes`.
    quotas: BTreeMap<&'static str, QuotaUsage>,
    /// Requests a second; null: as many as it likes.
    #[schema(example = 100)]
    requests_per_second: Option<u32>,
    /// Requests at once; null with the former.
    #[schema(example = 100)]
    burst: Option<u32>,
}

/// One quota.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuotaUsage {
    /// Null: none.
    #[schema(example = 50)]
    limit: Option<u64>,
    /// Can be over a limit that was lowered since: nothing is taken away for that.
    #[schema(example = 3)]
    used: u64,
}

/// `GET /v1/admin/tenants/{tenant}/usage`
///
/// Every tenant has an answer, one that nothing was made for, too: tenants are names that keys carry.
#[utoipa::path(get, path = "/v1/admin/tenants/{tenant}/usage", tag = "admin", params(("tenant" = String, Path, description = "a tenant's name", example = "acme")), responses((status = 200, description = "what it has and may have", body = TenantUsage), Get))]
pub async fn get(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Ids(name): Ids<String>,
) -> ApiResult<Json<TenantUsage>> {
    let tenant = Tenant::new(&name).ok_or_else(|| ApiError::not_found("tenant", &name))?;
    let counted = app.store.usage(&tenant).await?;
    let quotas = counted.into_iter().map(|usage| {
        let used = if usage.quota == Quota::Streams { app.streams.used(&tenant) } else { usage.used };
        (usage.quota.as_str(), QuotaUsage { limit: usage.limit, used })
    });
    let rate = app.profiles.load().rate(&tenant, app.config.quota);
    Ok(Json(TenantUsage {
        tenant: name,
        quotas: quotas.collect(),
        requests_per_second: rate.map(|rate| rate.per_second.get()),
        burst: rate.map(|rate| rate.burst.get()),
    }))
}
