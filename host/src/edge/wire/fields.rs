//! Reads the fields of a JSON body so that every complaint comes at once.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// Most labels.
pub(super) const MAX_LABELS: usize = 32;
/// Longest label key, in bytes.
const MAX_LABEL_KEY: usize = 63;
/// Longest label value, in bytes.
const MAX_LABEL_VALUE: usize = 256;
/// Longest name of a sandbox or a locker, in bytes.
pub(super) const MAX_NAME: usize = 128;
/// Most members that an object may have; one more is looked at, no matter how many there are.
pub(super) const MAX_MEMBERS: usize = 128;

/// A body that is being read, and what is wrong with it so far.
pub(super) struct Fields<'b> {
    body: &'b Value,
    errors: Vec<(String, String)>,
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

    /// Text of 1 to `max` bytes without NUL.
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

    /// Text of 1 to `max` bytes without control characters.
    pub(super) fn line(&mut self, field: &str, max: usize) -> Option<&'b str> {
        let value = self.given(field)?;
        let fits = |text: &&str| !text.is_empty() && text.len() <= max && !text.contains(char::is_control);
        let text = value.as_str().filter(fits);
        if text.is_none() {
            self.complain(field, format!("must be a string of 1 to {max} bytes without control characters"));
        }
        text
    }

    /// A whole number from 1 to `max`.
    pub(super) fn count(&mut self, field: &str, max: u64) -> Option<u64> {
        let value = self.given(field)?;
        let number = value.as_u64().filter(|n| (1..=max).contains(n));
        if number.is_none() {
            self.complain(field, format!("must be a whole number from 1 to {max}"));
        }
        number
    }

    /// A list of 1 to `max` strings.
    pub(super) fn list(&mut self, field: &str, max: usize) -> Option<Vec<&'b str>> {
        let value = self.given(field)?;
        let list = value.as_array().filter(|list| (1..=max).contains(&list.len()));
        let texts = list.and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        if texts.is_none() {
            self.complain(field, format!("must be a list of 1 to {max} strings"));
        }
        texts
    }

    /// An object of strings, each of which `check` takes.
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
        for (key, value) in object.iter().take(MAX_MEMBERS + 1) {
            match value.as_str().ok_or("must be a string").and_then(|v| check(key, v).map(|()| v)) {
                Ok(text) => {
                    map.insert(key.clone(), text.to_owned());
                }
                Err(message) => self.complain_within(field, key, message),
            }
        }
        map
    }

    /// The merge patch `labels`: null within takes one away. Nothing where it is missing or null itself.
    pub(super) fn label_patch(&mut self) -> BTreeMap<String, Option<String>> {
        let mut labels = BTreeMap::new();
        let Some(value) = self.given("labels") else { return labels };
        let Value::Object(object) = value else {
            self.complain("labels", "must be an object of strings and nulls, or null");
            return labels;
        };
        self.bound("labels", object.len() > 2 * MAX_LABELS, "at most 64 changes at once");
        for (key, value) in object.iter().take(2 * MAX_LABELS) {
            let text = if value.is_null() { Some("") } else { value.as_str() };
            match text.ok_or("must be a string or null").and_then(|text| label(key, text)) {
                Ok(()) => {
                    labels.insert(key.clone(), value.as_str().map(str::to_owned));
                }
                Err(message) => self.complain_within("labels", key, message),
            }
        }
        labels
    }
}

/// Whether a label may be so; why not.
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
