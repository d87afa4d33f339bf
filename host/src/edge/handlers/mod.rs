//! One recipe a route.

pub mod admin_keys;
pub mod audit;
pub mod capabilities;
pub mod capability;
pub mod docs;
pub mod executions;
pub mod files;
pub mod gc;
pub mod history;
pub mod lockers;
pub mod metrics;
pub mod ops;
pub mod paths;
pub mod processes;
mod repeat;
pub mod sandboxes;
pub mod terminal;
pub mod tokens;
pub mod transfer;
pub mod usage;

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::edge::input;
use crate::error::{ApiError, ApiResult};
use crate::store::{Cursor, Page};

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

/// `limit` and `cursor` as the store takes them.
fn page(pairs: &[(String, String)]) -> ApiResult<Page> {
    let (limit, cursor) = input::page(pairs)?;
    let cursor = cursor
        .map(|text| Cursor::decode(&text).ok_or_else(|| ApiError::field("cursor", "is not one of Bay's")))
        .transpose()?;
    Ok(Page { limit, cursor })
}

/// Every `label=key=value`.
fn labels(pairs: &[(String, String)]) -> ApiResult<BTreeMap<String, String>> {
    let given = pairs.iter().filter(|(name, _)| name == "label");
    let split = given.map(|(_, text)| {
        let (key, value) =
            text.split_once('=').ok_or_else(|| ApiError::field("label", "must be key=value"))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    split.collect()
}
