//! API keys, for administrators: of any tenant. The same routes serve `bay key` on the admin socket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Ids, page};
use crate::app::App;
use crate::auth::Tenant;
use crate::credentials::create_key;
use crate::edge::caller::Admin;
use crate::edge::middleware::Audited;
use crate::edge::openapi::refusals;
use crate::edge::wire::{CreateKey, CreatedKey, KeyList, KeyObject};
use crate::edge::{body, input};
use crate::error::{ApiError, ApiResult};
use crate::id::Kind;
use crate::time::now_ms;

refusals!(Create: ValidationError, QuotaExceeded, PayloadTooLarge, UnsupportedMediaType);
refusals!(List: ValidationError);
refusals!(One: NotFound);

/// `POST /v1/admin/keys`: makes a key of any tenant, and shows its secret once.
///
/// A tenant need not exist before: it is a name. An administrator can so make a key with any scope, itself included.
/// An `Idempotency-Key` is refused, since replaying the answer would mean storing the secret.
#[utoipa::path(post, path = "/v1/admin/keys", tag = "admin", request_body = CreateKey, responses((status = 201, description = "the key, with its secret", body = CreatedKey), Create))]
pub async fn create(
    State(app): State<Arc<App>>,
    Admin(context): Admin,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    if headers.contains_key("idempotency-key") {
        return Err(ApiError::field(
            "Idempotency-Key",
            "cannot be kept here: the answer holds a secret, which is never stored; leave it out",
        ));
    }
    let body = body::json(&app, &headers, body, true).await?;
    let wanted = CreateKey::parse(&body, &context.tenant)?;
    let (row, key) = create_key(&app.store, wanted).await?;
    let audited = Audited(row.id.clone());
    let made = CreatedKey { key: row.into(), secret: key.reveal() };
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok((StatusCode::CREATED, Extension(audited), [no_store], Json(made)).into_response())
}

/// `GET /v1/admin/keys`: keys of one tenant or of all, newest first, expired and revoked ones too.
#[utoipa::path(get, path = "/v1/admin/keys", tag = "admin", params(("tenant" = Option<String>, Query, description = "only this tenant's"), ("limit" = Option<u32>, Query, minimum = 1, maximum = 200), ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")), responses((status = 200, description = "a page of keys", body = KeyList), List))]
pub async fn list(
    State(app): State<Arc<App>>,
    admin: Admin,
    RawQuery(raw): RawQuery,
) -> ApiResult<Json<KeyList>> {
    let pairs = input::query(raw.as_deref())?;
    let page = page(&pairs)?;
    let tenant = input::find(&pairs, "tenant").map(|name| {
        Tenant::new(name)
            .ok_or_else(|| ApiError::field("tenant", "must be 1-63 of a-z, 0-9, `_` and `-`, no sign first"))
    });
    let listing = app.store.list_keys(&admin.system()?, tenant.transpose()?, page).await?;
    Ok(Json(listing.into()))
}

/// `GET /v1/admin/keys/{key}`
#[utoipa::path(get, path = "/v1/admin/keys/{key}", tag = "admin", params(("key" = String, Path, description = "`key_…`")), responses((status = 200, description = "the key", body = KeyObject), One))]
pub async fn get(
    State(app): State<Arc<App>>,
    admin: Admin,
    Ids(id): Ids<String>,
) -> ApiResult<Json<KeyObject>> {
    known(&id)?;
    let row = app.store.find_key(&admin.system()?, &id).await?;
    row.map(|row| Json(row.into())).ok_or_else(|| ApiError::not_found("key", &id))
}

/// `DELETE /v1/admin/keys/{key}`: revokes a key at once, and every sandbox token it made.
///
/// Again: 204. The key stays to be seen with its `revoked_at`. The key that makes the request may be revoked, too.
#[utoipa::path(delete, path = "/v1/admin/keys/{key}", tag = "admin", params(("key" = String, Path, description = "`key_…`")), responses((status = 204, description = "revoked"), One))]
pub async fn revoke(
    State(app): State<Arc<App>>,
    admin: Admin,
    Ids(id): Ids<String>,
) -> ApiResult<StatusCode> {
    known(&id)?;
    let row = app.store.revoke_key(&admin.system()?, &id, now_ms()).await?;
    tracing::info!(key_id = row.id, tenant = row.tenant.as_str(), by = ?admin.0.key_id, "API key revoked");
    Ok(StatusCode::NO_CONTENT)
}

fn known(id: &str) -> ApiResult<()> {
    if Kind::Key.is(id) { Ok(()) } else { Err(ApiError::not_found("key", id)) }
}
