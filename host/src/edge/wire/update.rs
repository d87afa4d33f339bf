//! `PATCH /v1/sandboxes/{id}` and `POST …/extend_ttl`: bodies, checked field by field.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Fields, MAX_NAME};
use crate::error::ApiResult;
use crate::time::from_rfc3339;

/// A hundred years in seconds: what is longer is a slip.
const MAX_SECONDS: u64 = 3_155_760_000;

/// A checked merge patch (RFC 7396): what is absent stays, null takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateSandbox {
    /// Null inside: no name.
    pub name: Option<Option<String>>,
    /// By key; null: the label goes.
    pub labels: BTreeMap<String, Option<String>>,
    /// `labels` was null: all of them go.
    pub clear_labels: bool,
    /// Unix milliseconds; null inside: never.
    pub expires_at: Option<Option<i64>>,
    /// Seconds; null inside: the profile's.
    pub idle_timeout: Option<Option<u64>>,
}

impl UpdateSandbox {
    /// Checks a body; unknown fields are ignored.
    pub fn parse(body: &Value) -> ApiResult<Self> {
        let mut fields = Fields::of(body);
        let mut patch = Self::default();
        let is_there = |field: &str| body.get(field).is_some();
        if is_there("name") {
            patch.name = Some(fields.text("name", MAX_NAME));
        }
        if is_there("labels") {
            patch.clear_labels = fields.given("labels").is_none();
            patch.labels = fields.label_patch();
        }
        if is_there("expires_at") {
            patch.expires_at = Some(time(&mut fields, "expires_at"));
        }
        if is_there("idle_timeout") {
            patch.idle_timeout = Some(seconds(&mut fields, "idle_timeout"));
        }
        fields.checked(patch)
    }
}

fn time(fields: &mut Fields<'_>, field: &str) -> Option<i64> {
    let value = fields.given(field)?;
    let time = value.as_str().and_then(from_rfc3339);
    if time.is_none() {
        fields.complain(field, "must be a time as in \"2030-01-31T12:00:00.000Z\", or null");
    }
    time
}

fn seconds(fields: &mut Fields<'_>, field: &str) -> Option<u64> {
    let seconds = fields.given(field)?.as_u64().filter(|s| (1..=MAX_SECONDS).contains(s));
    if seconds.is_none() {
        fields.complain(field, "must be a whole number of seconds, 1 or more, or null");
    }
    seconds
}

/// A checked body of `extend_ttl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtendTtl {
    /// Seconds.
    pub extend_by: u64,
}

impl ExtendTtl {
    /// Checks a body; unknown fields are ignored.
    pub fn parse(body: &Value) -> ApiResult<Self> {
        let mut fields = Fields::of(body);
        let extend_by =
            fields.given("extend_by").and_then(Value::as_u64).filter(|s| (1..=MAX_SECONDS).contains(s));
        if extend_by.is_none() {
            fields.complain("extend_by", "must be a whole number of seconds, 1 or more");
        }
        fields.checked(Self { extend_by: extend_by.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_stays_and_null_takes_away() {
        assert_eq!(UpdateSandbox::parse(&json!({ "unknown": 1 })).unwrap(), UpdateSandbox::default());
        let body = json!({ "name": null, "labels": { "a": null, "b": "1" }, "expires_at": null, "idle_timeout": null });
        let patch = UpdateSandbox::parse(&body).unwrap();
        assert_eq!(
            (patch.name, patch.expires_at, patch.idle_timeout, patch.clear_labels),
            (Some(None), Some(None), Some(None), false)
        );
        assert_eq!(patch.labels, BTreeMap::from([("a".into(), None), ("b".into(), Some("1".into()))]));
        assert!(UpdateSandbox::parse(&json!({ "labels": null })).unwrap().clear_labels);
    }

    #[test]
    fn every_complaint_comes_at_once() {
        let body = json!({ "name": "", "labels": { "bay.x": null, "a": 1 }, "expires_at": "soon", "idle_timeout": 0 });
        let text = UpdateSandbox::parse(&body).unwrap_err().details.to_string();
        for field in ["name", "labels.bay.x", "labels.a", "expires_at", "idle_timeout"] {
            assert!(text.contains(&format!("\"{field}\"")), "{field}: {text}");
        }
        for bad in
            [json!({}), json!({ "extend_by": 0 }), json!({ "extend_by": -1 }), json!({ "extend_by": "1" })]
        {
            assert!(ExtendTtl::parse(&bad).is_err(), "{bad}");
        }
        assert_eq!(ExtendTtl::parse(&json!({ "extend_by": 5 })).unwrap().extend_by, 5);
    }
}
