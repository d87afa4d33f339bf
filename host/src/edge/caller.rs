//! Who may call a route, by the type its handler takes: a handler without one of these does not get a context.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::auth::{OpContext, Scope};
use crate::error::{ApiError, ApiResult, Code};

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

fn context(parts: &Parts) -> ApiResult<OpContext> {
    parts.extensions.get().cloned().ok_or_else(|| ApiError::internal("a route without authentication"))
}

fn with_scope(parts: &Parts, scope: Scope) -> ApiResult<OpContext> {
    let context = context(parts)?;
    if context.has(scope) {
        return Ok(context);
    }
    Err(ApiError::new(Code::Forbidden, format!("this key has no scope `{}`", scope.as_str())))
}

macro_rules! extractors {
    ($($name:ident: $parts:ident => $context:expr;)*) => {$(
        impl<S: Send + Sync> FromRequestParts<S> for $name {
            type Rejection = ApiError;
            async fn from_request_parts($parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
                $context.map(Self)
            }
        }
    )*};
}

extractors! {
    Caller: parts => context(parts);
    Guest: parts => context(parts);
    Admin: parts => with_scope(parts, Scope::Admin);
    Ops: parts => with_scope(parts, Scope::Ops);
    LockerFiles: parts => with_scope(parts, Scope::LockersFiles);
}
