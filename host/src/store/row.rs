//! What rows share: times, JSON columns, hard caps.

use std::collections::BTreeMap;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::auth::Tenant;

use super::error::StoreError;

/// Milliseconds since 1970, UTC.
pub type Millis = i64;

/// Most rows a listing for background work gives at once; the next run takes the rest.
pub(super) const MAX_SCAN: usize = 10_000;
/// Most ids named in a conflict.
pub(super) const MAX_LISTED: usize = 20;
/// Longest name of anything, and longest profile, adapter or capability name.
pub(super) const MAX_NAME: usize = 256;
/// Largest JSON column that a client fills (labels, env, tags): a row stays far below a page cache's worth.
pub(super) const MAX_JSON: usize = 256 << 10;
/// Most labels, merged ones included; the edge checks the same of a create.
const MAX_LABELS: usize = 32;
/// Longest reason or failure message.
pub(super) const MAX_MESSAGE: usize = 4 << 10;

/// [`LIVE`] as a literal, for constants that it is a part of.
macro_rules! is_live {
    () => {
        "state IN ('starting', 'ready', 'stopping')"
    };
}
pub(super) use is_live;

/// That a session is live, in SQL. Word for word as the indexes of live sessions have it: they serve no other wording.
pub(super) const LIVE: &str = is_live!();

/// That the sandbox whose id is in a column serves a locker's files, in SQL.
macro_rules! serves_files {
    ($column:literal) => {
        concat!("substr(", $column, ", 1, 4) = 'fsb_'")
    };
}
pub(super) use serves_files;

/// That `table.labels` has all of `:labels` with the same values, in SQL.
pub(super) fn has_labels(table: &str) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM json_each(:labels) w WHERE NOT EXISTS \
         (SELECT 1 FROM json_each({table}.labels) h WHERE h.key = w.key AND h.value = w.value))"
    )
}

/// Environment of user processes. Its values are secrets: `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Env(pub BTreeMap<String, String>);

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A column that holds JSON.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        serde_json::to_string(&self.0)
            .map(ToSqlOutput::from)
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
    }
}

/// Refuses text longer than `max` bytes.
pub(super) fn cap(field: &'static str, text: &str, max: usize) -> Result<(), StoreError> {
    if text.len() > max { Err(StoreError::TooLarge { field, max }) } else { Ok(()) }
}

/// [`cap`] for text that may be absent.
pub(super) fn cap_opt(field: &'static str, text: Option<&String>, max: usize) -> Result<(), StoreError> {
    text.map_or(Ok(()), |text| cap(field, text, max))
}

/// Refuses a map or list whose text is longer than [`MAX_JSON`] in all.
pub(super) fn cap_all<'a>(
    field: &'static str,
    parts: impl IntoIterator<Item = &'a String>,
) -> Result<(), StoreError> {
    let total: usize = parts.into_iter().map(String::len).sum();
    if total > MAX_JSON { Err(StoreError::TooLarge { field, max: MAX_JSON }) } else { Ok(()) }
}

/// Applies a merge patch of labels: those it names are set, or go where it says null; with `clear` the others go too.
pub(super) fn merge_labels(
    labels: &mut BTreeMap<String, String>,
    patch: BTreeMap<String, Option<String>>,
    clear: bool,
) -> Result<(), StoreError> {
    if clear {
        labels.clear();
    }
    for (key, value) in patch {
        match value {
            Some(value) => labels.insert(key, value),
            None => labels.remove(&key),
        };
    }
    if labels.len() > MAX_LABELS {
        return Err(StoreError::TooLarge { field: "labels", max: MAX_LABELS });
    }
    cap_all("labels", labels.iter().flat_map(|(k, v)| [k, v]))
}

/// The first `max` bytes, never splitting a character.
pub(super) fn clip(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}

/// A missing row as [`StoreError::NotFound`].
pub(super) fn found<T>(row: rusqlite::Result<T>, resource: &'static str, id: &str) -> Result<T, StoreError> {
    match row {
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            Err(StoreError::NotFound { resource, id: id.to_owned() })
        }
        other => Ok(other?),
    }
}

impl ToSql for Tenant {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for Tenant {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::new(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

/// Gives an enum its text in a column, and back.
macro_rules! text_enum {
    ($type:ty { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $type {
            /// As stored and as shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// From its text; null when it is none.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl rusqlite::types::ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl rusqlite::types::FromSql for $type {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                Self::parse(value.as_str()?).ok_or(rusqlite::types::FromSqlError::InvalidType)
            }
        }
    };
}
pub(super) use text_enum;
