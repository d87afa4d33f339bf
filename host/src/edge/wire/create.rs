//! `POST /v1/sandboxes`: the body, checked field by field so that every complaint comes at once.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Fields, MAX_LABELS, MAX_MEMBERS, MAX_NAME, label};
use crate::error::ApiResult;

/// Most environment variables: as many members of an object as are looked at, so that one too many is seen.
const MAX_ENV: usize = MAX_MEMBERS;
/// Most bytes of the environment in all: it travels in one start-up message.
const MAX_ENV_BYTES: usize = 64 << 10;
/// Longest profile id.
const MAX_PROFILE: usize = 64;

/// How much of the start a create waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Nothing runs until the first call.
    Lazy,
    /// It starts at once; the answer does not wait.
    Eager,
    /// The answer waits until it is ready, or the budget is spent.
    Wait,
}

/// A checked body.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSandbox {
    /// Null: the tenant's default.
    pub profile: Option<String>,
    /// An external locker by id.
    pub locker_id: Option<String>,
    /// An external locker by name.
    pub locker: Option<String>,
    /// Seconds; null: never, or the profile's longest.
    pub ttl: Option<u64>,
    /// For people.
    pub name: Option<String>,
    /// For selection.
    pub labels: BTreeMap<String, String>,
    /// For user processes.
    pub env: BTreeMap<String, String>,
    /// How much of the start to wait for.
    pub start: Start,
}

impl CreateSandbox {
    /// Checks a body; unknown fields are ignored.
    pub fn parse(body: &Value) -> ApiResult<Self> {
        let mut fields = Fields::of(body);
        let parsed = Self {
            profile: fields.text("profile", MAX_PROFILE),
            locker_id: fields.text("locker_id", MAX_NAME),
            locker: fields.text("locker", MAX_NAME),
            ttl: fields.seconds("ttl"),
            name: fields.text("name", MAX_NAME),
            labels: fields.map("labels", label),
            env: fields.map("env", variable),
            start: fields.start(),
        };
        if parsed.locker_id.is_some() && parsed.locker.is_some() {
            fields.complain("locker", "give either `locker` or `locker_id`");
        }
        fields.bound("labels", parsed.labels.len() > MAX_LABELS, "at most 32 labels");
        fields.bound("env", parsed.env.len() > MAX_ENV, "at most 128 variables");
        let bytes: usize = parsed.env.iter().map(|(k, v)| k.len() + v.len()).sum();
        fields.bound("env", bytes > MAX_ENV_BYTES, "at most 64 KiB in all");
        fields.checked(parsed)
    }
}

impl Fields<'_> {
    fn seconds(&mut self, field: &str) -> Option<u64> {
        let value = self.given(field)?;
        match value.as_u64() {
            // A hundred years: what is longer is "never" misspelt, and would overflow dates.
            Some(seconds) if seconds <= 3_155_760_000 => return Some(seconds).filter(|s| *s > 0),
            Some(_) => self.complain(field, "is longer than a hundred years; leave it out for never"),
            None if value.is_number() => self.complain(field, "must be a whole number of seconds, 0 or more"),
            None => self.complain(field, "must be an integer"),
        }
        None
    }

    fn start(&mut self) -> Start {
        match self.given("start").map(Value::as_str) {
            None | Some(Some("eager")) => Start::Eager,
            Some(Some("lazy")) => Start::Lazy,
            Some(Some("wait")) => Start::Wait,
            Some(_) => {
                self.complain("start", "must be \"lazy\", \"eager\" or \"wait\"");
                Start::Eager
            }
        }
    }
}

fn variable(key: &str, value: &str) -> Result<(), &'static str> {
    let first = key.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("names are letters, digits and `_`, no digit first");
    }
    if value.contains('\0') { Err("values must not hold a NUL byte") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_body_is_all_defaults() {
        let parsed = CreateSandbox::parse(&json!({ "unknown": 1, "ttl": 0, "name": null })).unwrap();
        assert_eq!((parsed.start, parsed.ttl, parsed.name), (Start::Eager, None, None));
    }

    #[test]
    fn every_complaint_comes_at_once_and_no_env_value_is_echoed() {
        let body = json!({
            "profile": 1, "ttl": -1, "name": "", "labels": {"bay.x": "1", "a b": "1"}, "start": "now",
            "env": {"1X": "s3cret", "OK": 5}, "locker": "a", "locker_id": "b",
        });
        let error = CreateSandbox::parse(&body).unwrap_err();
        let text = error.details.to_string();
        for field in
            ["profile", "ttl", "name", "labels.bay.x", "labels.a b", "start", "env.1X", "env.OK", "locker"]
        {
            assert!(text.contains(&format!("\"{field}\"")), "{field}: {text}");
        }
        assert!(!text.contains("s3cret") && !error.message.contains("s3cret"));
    }
}
