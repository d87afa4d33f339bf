//! Lockers: what clients send and get.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::fields::{Fields, MAX_LABELS, MAX_NAME, label};
use crate::error::ApiResult;
use crate::store::{LockerChange, LockerRow};
use crate::time::rfc3339;

/// Largest `size_limit_mb`.
const MAX_SIZE_MB: u64 = 65_536;

/// A locker to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "name": "notes", "size_limit_mb": 512, "labels": { "team": "research" } }))]
pub struct CreateLockerRequest {
    /// Unique among the tenant's lockers; sandboxes may ask for the locker by it.
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
    /// Bound on what it holds, in MiB. Writes through Bay that would pass it are refused; user code is not stopped by it.
    #[schema(minimum = 1, maximum = 65536)]
    pub size_limit_mb: Option<u64>,
    /// At most 32.
    pub labels: Option<BTreeMap<String, String>>,
}

/// What of a locker is to change: a JSON merge patch.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "name": "old-notes", "labels": { "team": null, "archived": "yes" } }))]
pub struct ChangeLockerRequest {
    /// Null: without a name from now on.
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
    /// Labels to set; null removes one, null in place of the object removes all.
    pub labels: Option<BTreeMap<String, Option<String>>>,
}

/// Persistent storage that sandboxes have at `/workspace`.
#[derive(Debug, Serialize, ToSchema)]
pub struct LockerObject {
    /// `lkr_…`
    #[schema(example = "lkr_01kayd4m6c9x7c3v1t8r5e2w0q")]
    pub id: String,
    /// Unique among the tenant's lockers.
    pub name: Option<String>,
    /// Given by the client.
    pub labels: BTreeMap<String, String>,
    /// Whether a sandbox made it for itself; it goes with that sandbox.
    pub managed: bool,
    /// That sandbox.
    pub managed_by_sandbox_id: Option<String>,
    /// `docker_volume`, `directory` or `k8s_pvc`.
    pub backend: String,
    /// Bound on what it holds, in MiB; null: none.
    pub size_limit_mb: Option<u64>,
    /// Bytes in it as of `used_bytes_at`; null: not walked yet, or too much to walk.
    pub used_bytes: Option<u64>,
    /// When it was last walked: at the end of a session, and at most once a minute when it is looked at.
    pub used_bytes_at: Option<String>,
    /// When it was made.
    #[schema(example = "2026-11-24T12:00:00.000Z")]
    pub created_at: String,
    /// When a session, a new sandbox or a call on its files last took it.
    pub last_accessed_at: String,
}

/// A page of lockers, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct LockerPage {
    /// The lockers.
    pub items: Vec<LockerObject>,
    /// Where the next page begins; null on the last.
    pub next_cursor: Option<String>,
}

/// A file to read.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "path": "data/report.csv" }))]
pub struct ReadFile {
    /// Relative to the locker.
    pub path: String,
    /// `utf-8` or `base64`.
    #[schema(default = "utf-8")]
    pub encoding: Option<String>,
    /// First line, from 1.
    #[schema(minimum = 1)]
    pub offset: Option<u64>,
    /// Number of lines.
    #[schema(minimum = 1)]
    pub limit: Option<u64>,
}

/// A file to write.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "path": "data/report.csv", "content": "a,b\n1,2\n" }))]
pub struct WriteFile {
    /// Relative to the locker; directories above it are made.
    pub path: String,
    /// The whole file, or with `append` what is added to it.
    pub content: String,
    /// `utf-8` or `base64`.
    #[schema(default = "utf-8")]
    pub encoding: Option<String>,
    /// Permission bits; only the lowest nine count.
    pub mode: Option<u32>,
    /// Add to what is there.
    #[schema(default = false)]
    pub append: Option<bool>,
    /// With `append`: refuse unless the file has this many bytes now.
    pub expected_size: Option<u64>,
    /// Refuse unless the file has this etag now; `*`: unless it exists.
    pub if_match: Option<String>,
}

/// A directory to list.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "path": "data" }))]
pub struct ListFiles {
    /// Relative to the locker.
    #[schema(default = ".")]
    pub path: Option<String>,
    /// Into subdirectories.
    #[schema(default = false)]
    pub recursive: Option<bool>,
    /// Names that start with a dot, too.
    #[schema(default = false)]
    pub hidden: Option<bool>,
    /// Most entries of one page.
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// A path to delete.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "path": "data/report.csv" }))]
pub struct DeleteFile {
    /// A file, or a directory with all beneath.
    pub path: String,
}

/// A checked body of a create.
#[derive(Debug, PartialEq)]
pub struct CreateLocker {
    /// Unique within the tenant.
    pub name: Option<String>,
    /// Null: no bound.
    pub size_limit_mb: Option<u64>,
    /// For selection.
    pub labels: BTreeMap<String, String>,
}

/// A checked body of a change.
#[derive(Debug)]
pub struct ChangeLocker(pub LockerChange);

impl CreateLocker {
    /// Checks a body; unknown fields are ignored.
    pub fn parse(body: &Value) -> ApiResult<Self> {
        let mut fields = Fields::of(body);
        let parsed = Self {
            name: fields.text("name", MAX_NAME),
            size_limit_mb: fields.count("size_limit_mb", MAX_SIZE_MB),
            labels: fields.map("labels", label),
        };
        fields.bound("labels", parsed.labels.len() > MAX_LABELS, "at most 32 labels");
        fields.checked(parsed)
    }
}

impl ChangeLocker {
    /// Checks a merge patch; unknown fields are ignored.
    pub fn parse(body: &Value) -> ApiResult<Self> {
        let mut fields = Fields::of(body);
        let name = body.get("name").map(|_| fields.text("name", MAX_NAME));
        let labels = fields.label_patch();
        let clear_labels = body.get("labels").is_some_and(Value::is_null);
        fields.checked(Self(LockerChange { name, labels, clear_labels }))
    }
}

impl From<LockerRow> for LockerObject {
    fn from(row: LockerRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            labels: row.labels,
            managed: row.managed_by.is_some(),
            managed_by_sandbox_id: row.managed_by,
            backend: row.backend,
            size_limit_mb: row.size_limit_mb,
            used_bytes: row.used_bytes,
            used_bytes_at: row.used_bytes_at.map(rfc3339),
            created_at: rfc3339(row.created_at),
            last_accessed_at: rfc3339(row.last_accessed_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_complaint_about_a_locker_comes_at_once() {
        let error =
            CreateLocker::parse(&json!({ "name": "", "size_limit_mb": 65_537, "labels": { "bay.x": "1" } }));
        let text = error.unwrap_err().details.to_string();
        for field in ["name", "size_limit_mb", "labels.bay.x"] {
            assert!(text.contains(&format!("\"{field}\"")), "{field}: {text}");
        }
        let empty = CreateLocker::parse(&json!({ "name": null })).unwrap();
        assert_eq!((empty.name, empty.size_limit_mb), (None, None));
    }

    #[test]
    fn a_patch_sets_removes_and_leaves_alone() {
        let change = |body| ChangeLocker::parse(&body).unwrap().0;
        let some = change(json!({ "labels": { "a": "1", "b": null } }));
        assert_eq!(some.name, None);
        assert_eq!(some.labels, BTreeMap::from([("a".into(), Some("1".into())), ("b".into(), None)]));
        assert!(!some.clear_labels);
        let bare = change(json!({ "name": null, "labels": null }));
        assert_eq!((bare.name, bare.clear_labels), (Some(None), true));
        assert_eq!(change(json!({ "name": "n" })).name, Some(Some("n".into())));
    }
}
