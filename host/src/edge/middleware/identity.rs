//! Who asks: a key, or nobody where the operator allows that on loopback.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, header};

use super::RequestIds;
use crate::app::App;
use crate::auth::{OpContext, Tenant};
use crate::edge::server::Peer;
use crate::error::{ApiError, ApiResult, Code};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_OWNER: HeaderName = HeaderName::from_static("x-owner");

/// Puts an [`OpContext`] into the request, or answers 401.
pub async fn authenticate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    match Asked::of(&request).context(&app).await {
        Ok(context) => {
            request.extensions_mut().insert(context);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// For routes that need no key but say more to one that has a scope: a good key is noted, any other is as none.
pub async fn recognise(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    if let Ok(context) = Asked::of(&request).context(&app).await {
        request.extensions_mut().insert(context);
    }
    next.run(request).await
}

/// What of a request says who asks; taken out of it because a body cannot be shared across an await.
struct Asked {
    ids: Option<RequestIds>,
    headers: HeaderMap,
    from_loopback: bool,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let mut headers = HeaderMap::new();
        for name in [header::AUTHORIZATION, X_API_KEY, X_OWNER] {
            if let Some(value) = request.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let peer = request.extensions().get::<Peer>();
        Self {
            ids: request.extensions().get().cloned(),
            headers,
            from_loopback: peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback()),
        }
    }

    async fn context(self, app: &App) -> ApiResult<OpContext> {
        let ids =
            self.ids.ok_or_else(|| ApiError::internal("a request without an id reached authentication"))?;
        let owner = self.headers.get(X_OWNER);
        let named = |tenant, key_id, scopes| OpContext {
            tenant,
            key_id,
            scopes,
            request_id: ids.request_id,
            client_request_id: ids.client_request_id,
        };
        if let Some(key) = presented_key(&self.headers)? {
            if owner.is_some() {
                return Err(owner_refused());
            }
            let found = app.authenticate_key(&key).await?;
            return Ok(named(found.tenant, Some(found.id), found.scopes));
        }
        if !app.config.server.allow_anonymous {
            return Err(ApiError::new(Code::Unauthorized, "send an API key: Authorization: Bearer <key>"));
        }
        let tenant = match owner {
            None => Tenant::default_tenant(),
            Some(name) if self.from_loopback => {
                name.to_str().ok().and_then(Tenant::new).ok_or_else(|| {
                    ApiError::field("X-Owner", "must be 1-63 of a-z, 0-9, `_` and `-`, no sign first")
                })?
            }
            Some(_) => return Err(owner_refused()),
        };
        Ok(named(tenant, None, Vec::new()))
    }
}

fn owner_refused() -> ApiError {
    ApiError::field("X-Owner", "only an anonymous caller on loopback may name its tenant; leave it out")
}

/// The key a client sent, from either header. Two different ones are a mistake worth saying.
fn presented_key(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let bad = |what: &str| ApiError::new(Code::Unauthorized, what.to_owned());
    let bearer = match headers.get(header::AUTHORIZATION) {
        None => None,
        Some(value) => {
            let text = value.to_str().map_err(|_| bad("the Authorization header is not text"))?;
            let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
            if !scheme.eq_ignore_ascii_case("bearer") || key.trim().is_empty() {
                return Err(bad("use Authorization: Bearer <key>"));
            }
            Some(key.trim().to_owned())
        }
    };
    let plain = match headers.get(X_API_KEY) {
        None => None,
        Some(value) => {
            Some(value.to_str().map_err(|_| bad("the X-API-Key header is not text"))?.trim().to_owned())
        }
    };
    match (bearer, plain) {
        (Some(a), Some(b)) if a != b => Err(bad("Authorization and X-API-Key name different keys; send one")),
        (Some(key), _) | (None, Some(key)) => Ok(Some(key)),
        (None, None) => Ok(None),
    }
}
