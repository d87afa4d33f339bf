//! One recipe a route.

pub mod admin_keys;
pub mod capability;
pub mod executions;
pub mod files;
pub mod history;
pub mod ops;
pub mod paths;
pub mod processes;
mod repeat;
pub mod sandboxes;
pub mod terminal;
pub mod tokens;
pub mod transfer;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::error::ApiError;

/// Path parameters; what does not decode names nothing.
pub struct Ids<T>(pub T);

impl<S, T> FromRequestParts<S> for Ids<T>
where
    S: Send + Sync,
    T: serde::de::DeserializeOwned + Send,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(ids)) => Ok(Self(ids)),
            Err(_) => Err(ApiError::not_found("path", parts.uri.path())),
        }
    }
}
