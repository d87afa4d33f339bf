//! Reads the fields of a JSON body so that every complaint comes at once.

use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// A body that is being read, and what is wrong with it so far.
pub(super) struct Reader<'b> {
    body: &'b Value,
    errors: Vec<(String, String)>,
}

impl<'b> Reader<'b> {
    pub(super) fn of(body: &'b Value) -> Self {
        Self { body, errors: Vec::new() }
    }

    pub(super) fn complain(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push((field.to_owned(), message.into()));
    }

    /// The field, unless it is missing or null.
    pub(super) fn given(&self, field: &str) -> Option<&'b Value> {
        self.body.get(field).filter(|value| !value.is_null())
    }

    /// Text of 1 to `max` bytes without control characters.
    pub(super) fn text(&mut self, field: &str, max: usize) -> Option<&'b str> {
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

    /// What was read, if nothing is wrong.
    pub(super) fn end<T>(self, read: T) -> ApiResult<T> {
        if self.errors.is_empty() { Ok(read) } else { Err(ApiError::fields(&self.errors)) }
    }
}
