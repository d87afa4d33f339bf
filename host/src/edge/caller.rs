//! Who may call a route, by the type its handler takes: a handler without one of these does not get a context.
//!
//! | type | an API key with the scope | a sandbox token |
//! |---|---|---|
//! | [`Caller`] | `sandboxes` | never |
//! | [`Guest`] | `sandboxes` | of that sandbox and that capability |
//! | [`Admin`] | `admin` | never |
//! | [`LockerFiles`] | `lockers:files` | never |
//!
//! To a token every other sandbox is a missing one, on every route beneath it.

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use axum::http::request::Parts;

use crate::auth::{Grant, OpContext, Scope, SystemContext};
use crate::error::{ApiError, ApiResult, Code};

/// What every route of a sandbox begins with.
const SANDBOXES: &str = "/v1/sandboxes/";
/// The routes of executions, which are python's and shell's in common.
const EXECUTIONS: &str = "executions";
/// Capabilities of which one is enough for them.
const EXECUTING: [&str; 2] = ["python", "shell"];

/// A tenant's key, or an anonymous caller where those are let in. Never a credential that is bound to one sandbox.
pub struct Caller(pub OpContext);

/// As [`Caller`], and whatever credential is bound to the sandbox and the capability that the path names.
pub struct Guest(pub OpContext);

/// A key with the scope `admin`.
pub struct Admin(pub OpContext);

/// A key with the scope `ops`.
pub struct Ops(pub OpContext);

/// A key with the scope `lockers:files`.
pub struct LockerFiles(pub OpContext);

impl Admin {
    /// For queries across tenants.
    pub fn system(&self) -> ApiResult<SystemContext> {
        SystemContext::for_admin(&self.0).ok_or_else(|| ApiError::internal("an admin without the scope"))
    }
}

fn context(parts: &Parts) -> ApiResult<OpContext> {
    parts.extensions.get().cloned().ok_or_else(|| ApiError::internal("a route without authentication"))
}

async fn with_scope(parts: &mut Parts, scope: Scope) -> ApiResult<OpContext> {
    let context = context(parts)?;
    if let Some(grant) = &context.grant {
        return Err(Place::of(parts).await.refusal(grant));
    }
    if context.has(scope) {
        return Ok(context);
    }
    Err(ApiError::new(Code::Forbidden, format!("this key has no scope `{}`", scope.as_str())))
}

async fn guest(parts: &mut Parts) -> ApiResult<OpContext> {
    let context = context(parts)?;
    let Some(grant) = &context.grant else { return with_scope(parts, Scope::Sandboxes).await };
    let place = Place::of(parts).await;
    if place.is_granted(grant) { Ok(context) } else { Err(place.refusal(grant)) }
}

/// What a path names beneath `/v1/sandboxes`; nothing for any other.
#[derive(Debug, Default)]
struct Place {
    sandbox: Option<String>,
    capability: Option<String>,
}

impl Place {
    async fn of(parts: &mut Parts) -> Self {
        let route = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let Some(route) = route else { return Self::default() };
        // None where a part of the path is not text: then it names nothing.
        let Ok(params) = RawPathParams::from_request_parts(parts, &()).await else { return Self::default() };
        let params: Vec<_> = params.iter().collect();
        Self::in_route(&route, &params)
    }

    /// From the route's pattern and the values of its parameters.
    fn in_route(route: &str, params: &[(&str, &str)]) -> Self {
        let mut segments = route.strip_prefix(SANDBOXES).into_iter().flat_map(|rest| rest.split('/'));
        let mut value = || {
            let segment = segments.next()?;
            match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                None => Some(segment.to_owned()),
                Some(name) => params.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()),
            }
        };
        Self { sandbox: value(), capability: value() }
    }

    fn is_granted(&self, grant: &Grant) -> bool {
        let has = |capability: &str| grant.capabilities.iter().any(|c| c == capability);
        self.sandbox.as_deref() == Some(grant.sandbox_id.as_str())
            && self.capability.as_deref().is_some_and(|name| match name {
                EXECUTIONS => EXECUTING.into_iter().any(has),
                name => has(name),
            })
    }

    /// Why a token may not be used here. Another sandbox does not exist for it.
    fn refusal(&self, grant: &Grant) -> ApiError {
        match &self.sandbox {
            Some(id) if *id != grant.sandbox_id => ApiError::not_found("sandbox", id),
            Some(_) | None => ApiError::new(
                Code::Forbidden,
                format!("this token is for {} of its sandbox only", grant.capabilities.join(", ")),
            ),
        }
    }
}

macro_rules! extractors {
    ($($name:ident: $parts:ident => $context:expr;)*) => {$(
        impl<S: Send + Sync> FromRequestParts<S> for $name {
            type Rejection = ApiError;
            async fn from_request_parts($parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
                $context.await.map(Self)
            }
        }
    )*};
}

extractors! {
    Caller: parts => with_scope(parts, Scope::Sandboxes);
    Guest: parts => guest(parts);
    Admin: parts => with_scope(parts, Scope::Admin);
    Ops: parts => with_scope(parts, Scope::Ops);
    LockerFiles: parts => with_scope(parts, Scope::LockersFiles);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Routes that answer without a key, each with its reason in the contract.
    const OPEN: [&str; 5] = ["/health", "/ready", "/openapi.json", "/docs", "/metrics"];

    #[test]
    fn every_handler_says_who_may_call_it() {
        let mut seen = 0;
        for (path, text) in crate::testing::sources("edge/handlers") {
            for annotated in text.split("#[utoipa::path(").skip(1) {
                let (_, rest) = annotated.split_once("path = \"").expect("a path");
                let (route, rest) = rest.split_once('"').expect("the end of the path");
                let (_, rest) = rest.split_once("fn ").expect("a handler");
                let signature = rest.split('{').next().unwrap_or_default();
                let takes = |name| signature.contains(&format!(": {name}"));
                let typed = ["Caller", "Guest", "Admin", "LockerFiles"].into_iter().any(takes);
                let open = OPEN.iter().any(|open| route == *open || route.starts_with(&format!("{open}/")));
                assert!(typed != open, "{}: {route}: {signature}", path.display());
                assert!(!route.starts_with("/v1/admin/") || takes("Admin"), "{route} is for admins");
                seen += 1;
            }
        }
        assert!(seen > 10, "{seen} handlers: the test no longer finds them");
    }

    #[test]
    fn a_token_reaches_its_capabilities_of_its_sandbox_and_no_other_place() {
        let grant = |capabilities: &[&str]| Grant {
            sandbox_id: "sbx_own".into(),
            capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
        };
        let files = "/v1/sandboxes/{id}/filesystem/files";
        let call = "/v1/sandboxes/{id}/{capability}/{operation}";
        let execution = "/v1/sandboxes/{id}/executions/{execution}";
        for (route, params, capabilities, granted) in [
            (files, vec![("id", "sbx_own")], vec!["filesystem"], true),
            (files, vec![("id", "sbx_own")], vec!["shell"], false),
            (files, vec![("id", "sbx_other")], vec!["filesystem"], false),
            (call, vec![("id", "sbx_own"), ("capability", "shell")], vec!["python", "shell"], true),
            (call, vec![("id", "sbx_own"), ("capability", "shell")], vec!["python"], false),
            (call, vec![("id", "sbx_own"), ("capability", "tokens")], vec!["shell"], false),
            (execution, vec![("id", "sbx_own")], vec!["python"], true),
            (execution, vec![("id", "sbx_own")], vec!["shell"], true),
            (execution, vec![("id", "sbx_own")], vec!["terminal"], false),
            ("/v1/sandboxes/{id}", vec![("id", "sbx_own")], vec!["shell"], false),
            ("/v1/sandboxes", vec![], vec!["shell"], false),
            ("/v1/lockers/{id}", vec![("id", "sbx_own")], vec!["shell"], false),
        ] {
            let place = Place::in_route(route, &params);
            assert_eq!(place.is_granted(&grant(&capabilities)), granted, "{route} {params:?} {place:?}");
        }
    }

    #[test]
    fn another_sandbox_is_a_missing_one_to_a_token() {
        let grant = Grant { sandbox_id: "sbx_own".into(), capabilities: vec!["shell".into()] };
        let refusal = |id: &str| Place::in_route("/v1/sandboxes/{id}", &[("id", id)]).refusal(&grant).code;
        assert_eq!(refusal("sbx_own"), Code::Forbidden);
        assert_eq!(refusal("sbx_other"), Code::NotFound);
    }
}
