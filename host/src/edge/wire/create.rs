//! `POST /v1/sandboxes`: the body, checked field by field so that every complaint comes at once.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// Most labels.
pub(super) const MAX_LABELS: usize = 32;
/// Longest label key, in bytes.
const MAX_LABEL_KEY: usize = 63;
/// Longest label value, in bytes.
const MAX_LABEL_VALUE: usize = 256;
/// Longest name of a sandbox, in bytes.
pub(super) const MAX_NAME: usize = 128;
/// Most environment variables.
const MAX_ENV: usize = 128;
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

/// Collects complaints while fields are read.
pub(super) struct Fields<'b> {
    body: &'b Value,
    errors: Vec<(String, String)>,
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

impl<'b> Fields<'b> {
    /// Of a body that is an object.
    pub(super) fn of(body: &'b Value) -> Self {
        Self { body, errors: Vec::new() }
    }

    /// What was read, unless there were complaints.
    pub(super) fn checked<T>(self, parsed: T) -> ApiResult<T> {
        if self.errors.is_empty() { Ok(parsed) } else { Err(ApiError::fields(&self.errors)) }
    }

    /// About a member of a map: only its key is named, since a value may be a secret.
    pub(super) fn complain_within(&mut self, field: &str, key: &str, message: &str) {
        let named = format!("{field}.{}", key.chars().take(MAX_LABEL_KEY).collect::<String>());
        self.complain(&named, message);
    }

    pub(super) fn complain(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push((field.to_owned(), message.into()));
    }

    pub(super) fn bound(&mut self, field: &str, broken: bool, message: &str) {
        if broken {
            self.complain(field, message);
        }
    }

    /// The field, unless it is missing or null.
    pub(super) fn given(&self, field: &str) -> Option<&'b Value> {
        self.body.get(field).filter(|v| !v.is_null())
    }

    pub(super) fn text(&mut self, field: &str, max: usize) -> Option<String> {
        match self.given(field)? {
            Value::String(text) if !text.is_empty() && text.len() <= max && !text.contains('\0') => {
                return Some(text.clone());
            }
            Value::String(_) => self.complain(field, format!("must be 1 to {max} bytes without NUL")),
            _ => self.complain(field, "must be a string"),
        }
        None
    }

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

    pub(super) fn map(
        &mut self,
        field: &str,
        check: fn(&str, &str) -> Result<(), &'static str>,
    ) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        let Some(value) = self.given(field) else { return map };
        let Value::Object(object) = value else {
            self.complain(field, "must be an object of strings");
            return map;
        };
        for (key, value) in object.iter().take(MAX_ENV + 1) {
            match value.as_str().ok_or("must be a string").and_then(|v| check(key, v).map(|()| v)) {
                Ok(text) => {
                    map.insert(key.clone(), text.to_owned());
                }
                Err(message) => self.complain_within(field, key, message),
            }
        }
        map
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

pub(super) fn label(key: &str, value: &str) -> Result<(), &'static str> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-');
    if key.is_empty() || key.len() > MAX_LABEL_KEY || !key.bytes().all(legal) {
        return Err("keys are 1-63 of letters, digits, `.`, `_`, `/` and `-`");
    }
    if key.starts_with("bay.") {
        return Err("keys that start with `bay.` are Bay's own");
    }
    if value.len() > MAX_LABEL_VALUE { Err("values are at most 256 bytes") } else { Ok(()) }
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
