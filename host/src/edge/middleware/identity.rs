//! Who asks: a key, a sandbox token, or nobody where the operator allows that on loopback.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, header};

use super::RequestIds;
use crate::app::App;
use crate::auth::token::is_token;
use crate::auth::{OpContext, Scope, Tenant};
use crate::credentials::Holder;
use crate::edge::credential::{Credential, LetInBy};
use crate::edge::server::Peer;
use crate::edge::websocket::BEARER;
use crate::error::{ApiError, ApiResult, Code};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_OWNER: HeaderName = HeaderName::from_static("x-owner");

/// Puts an [`OpContext`] into the request, or answers 401; 429 where an address goes on with what is wrong.
pub async fn authenticate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    match Asked::of(&request).context(&app).await {
        Ok((context, by)) => {
            request.extensions_mut().insert(context);
            request.extensions_mut().insert(by.clone());
            by.bound(app, next.run(request).await)
        }
        Err(error) => error.into_response(),
    }
}

/// For routes that need no key but say more to one that has a scope: a good key is noted, any other is as none. So is
/// a sandbox token, which is for routes of its sandbox only.
pub async fn recognise(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    if let Ok((context, _)) = Asked::of(&request).context(&app).await
        && context.grant.is_none()
    {
        request.extensions_mut().insert(context);
    }
    next.run(request).await
}

/// For the admin socket, which only the operator can open: an administrator without a key.
pub async fn as_operator(mut request: Request, next: Next) -> Response {
    let Some(ids) = request.extensions().get::<RequestIds>().cloned() else {
        return ApiError::internal("a request without an id reached the admin socket").into_response();
    };
    request.extensions_mut().insert(OpContext {
        tenant: Tenant::default_tenant(),
        key_id: None,
        scopes: vec![Scope::Admin],
        grant: None,
        request_id: ids.request_id,
        client_request_id: ids.client_request_id,
    });
    next.run(request).await
}

/// What of a request says who asks; taken out of it because a body cannot be shared across an await.
struct Asked {
    ids: Option<RequestIds>,
    headers: HeaderMap,
    peer: Option<IpAddr>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let mut headers = HeaderMap::new();
        for name in [header::AUTHORIZATION, X_API_KEY, X_OWNER, header::SEC_WEBSOCKET_PROTOCOL] {
            for value in request.headers().get_all(&name) {
                headers.append(&name, value.clone());
            }
        }
        let peer = request.extensions().get::<Peer>();
        Self {
            ids: request.extensions().get().cloned(),
            headers,
            peer: peer.map(|peer| peer.0.ip().to_canonical()),
        }
    }

    async fn context(self, app: &App) -> ApiResult<(OpContext, LetInBy)> {
        let ids = self
            .ids
            .clone()
            .ok_or_else(|| ApiError::internal("a request without an id reached authentication"))?;
        let credential = presented(&self.headers)?;
        let holder = self.holder(app, credential.as_ref()).await?;
        let context = OpContext {
            tenant: holder.tenant,
            key_id: holder.key_id,
            scopes: holder.scopes,
            grant: holder.grant,
            request_id: ids.request_id,
            client_request_id: ids.client_request_id,
        };
        Ok((context, LetInBy::new(credential)))
    }

    async fn holder(&self, app: &App, credential: Option<&Credential>) -> ApiResult<Holder> {
        let owner = self.headers.get(X_OWNER);
        if let Some(credential) = credential {
            if owner.is_some() {
                return Err(owner_refused());
            }
            let found = credential.holder(app).await;
            return found.map_err(|error| app.credentials.refusal(error, self.peer));
        }
        if !app.config.server.allow_anonymous {
            return Err(ApiError::new(Code::Unauthorized, "send an API key: Authorization: Bearer <key>"));
        }
        let tenant = match owner {
            None => Tenant::default_tenant(),
            Some(name) if self.peer.is_some_and(|peer| peer.is_loopback()) => {
                name.to_str().ok().and_then(Tenant::new).ok_or_else(|| {
                    ApiError::field("X-Owner", "must be 1-63 of a-z, 0-9, `_` and `-`, no sign first")
                })?
            }
            Some(_) => return Err(owner_refused()),
        };
        // Never more than this: whoever reaches the port has it.
        Ok(Holder { tenant, key_id: None, scopes: vec![Scope::Sandboxes], grant: None })
    }
}

fn owner_refused() -> ApiError {
    ApiError::field("X-Owner", "only an anonymous caller on loopback may name its tenant; leave it out")
}

/// What a client sent, from any of the three headers. Two that differ are a mistake worth saying.
fn presented(headers: &HeaderMap) -> ApiResult<Option<Credential>> {
    let bearer = single(headers, &header::AUTHORIZATION)?.map(bearer).transpose()?;
    let plain = single(headers, &X_API_KEY)?.map(|text| Credential::Key(text.trim().to_owned()));
    let mut found = None;
    for one in [bearer, plain, subprotocol(headers)?].into_iter().flatten() {
        if found.as_ref().is_some_and(|other| *other != one) {
            return Err(unauthorized("different keys or tokens were sent; send one"));
        }
        found = Some(one);
    }
    Ok(found)
}

fn unauthorized(what: impl Into<String>) -> ApiError {
    ApiError::new(Code::Unauthorized, what)
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> ApiResult<Option<&'h str>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unauthorized(format!("the header {name} was sent twice; send it once")));
    }
    let text = value.to_str().map_err(|_| unauthorized(format!("the header {name} is not text")))?;
    Ok(Some(text))
}

fn bearer(text: &str) -> ApiResult<Credential> {
    let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() {
        return Err(unauthorized("use Authorization: Bearer <key>"));
    }
    let key = key.to_owned();
    Ok(if is_token(&key) { Credential::Token(key) } else { Credential::Key(key) })
}

/// The token among the subprotocols that a WebSocket client offers. A key is refused here whether it is good or not:
/// it would be a page that holds it.
fn subprotocol(headers: &HeaderMap) -> ApiResult<Option<Credential>> {
    let mut found = None;
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        // What is not text offers no protocol of ours.
        let offered = value.to_str().unwrap_or_default().split(',').map(str::trim);
        for credential in offered.filter_map(|protocol| protocol.strip_prefix(BEARER)) {
            if !is_token(credential) {
                return Err(unauthorized("a subprotocol may hold a sandbox token, and never an API key"));
            }
            if found.is_some() {
                return Err(unauthorized("several tokens were offered; offer one"));
            }
            found = Some(Credential::Token(credential.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(headers: &[(&'static str, &str)]) -> Result<Option<Credential>, Code> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        presented(&map).map_err(|error| error.code)
    }

    #[test]
    fn a_credential_is_found_in_each_of_its_headers() {
        let key = |text: &str| Some(Credential::Key(text.to_owned()));
        let token = |text: &str| Some(Credential::Token(text.to_owned()));
        let ws = "sec-websocket-protocol";
        for (headers, wanted) in [
            (vec![], None),
            (vec![("authorization", "bearer  bay_x")], key("bay_x")),
            (vec![("authorization", "Bearer bst_x")], token("bst_x")),
            (vec![("x-api-key", " bay_x ")], key("bay_x")),
            // The other header is for keys, and a token is none.
            (vec![("x-api-key", "bst_x")], key("bst_x")),
            (vec![("authorization", "Bearer bay_x"), ("x-api-key", "bay_x")], key("bay_x")),
            (vec![(ws, "bay.terminal.v1")], None),
            (vec![(ws, "bay.terminal.v1, bearer.bst_x")], token("bst_x")),
            (vec![(ws, "bay.terminal.v1"), (ws, "bearer.bst_x")], token("bst_x")),
            (vec![(ws, "bearer.bst_x"), ("authorization", "Bearer bst_x")], token("bst_x")),
        ] {
            assert!(found(&headers) == Ok(wanted), "{headers:?}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_in_the_wrong_place_is_refused() {
        let ws = "sec-websocket-protocol";
        for headers in [
            vec![("authorization", "Basic eA==")],
            vec![("authorization", "Bearer ")],
            vec![("authorization", "bay_x")],
            vec![("authorization", "Bearer bay_x"), ("authorization", "Bearer bay_x")],
            vec![("authorization", "Bearer bay_x"), ("x-api-key", "bay_y")],
            vec![("authorization", "Bearer bay_x"), (ws, "bearer.bst_x")],
            vec![(ws, "bearer.bay_x")],
            vec![(ws, "bearer.")],
            vec![(ws, "bearer.bst_x, bearer.bst_y")],
        ] {
            assert!(found(&headers) == Err(Code::Unauthorized), "{headers:?}");
        }
    }
}
