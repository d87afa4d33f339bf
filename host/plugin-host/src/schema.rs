//! JSON Schemas from manifests, compiled.
//!
//! Nothing outside a schema is ever fetched: the library is built without resolvers, and references to other
//! documents are refused here besides, since a plugin's schema must not make Bay open a file or a connection.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};

/// Marks a string property that is a path beneath `/workspace`.
pub const WORKSPACE_PATH: &str = "workspace-path";

/// Most errors that one validation reports.
const MAX_ERRORS: usize = 32;
/// Largest schema as JSON text: it is shown in OpenAPI, and compiled at each load.
pub(crate) const MAX_SCHEMA: usize = 256 << 10;

/// One schema of an operation's input, ready to be applied.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    defaults: Map<String, Value>,
    paths: Vec<String>,
}

impl Schema {
    /// Compiles a schema (2020-12). The error is for whoever wrote it.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        if schema.to_string().len() > MAX_SCHEMA {
            return Err(format!("a schema is larger than {} KiB", MAX_SCHEMA >> 10));
        }
        if let Some(reference) = foreign_reference(schema) {
            return Err(format!(
                "a schema refers to `{reference}`; only references within itself (`#…`) are allowed"
            ));
        }
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            // Linear time: a pattern of a plugin must not make one input take minutes.
            .with_pattern_options(PatternOptions::regex())
            .build(schema)
            .map_err(|e| format!("a schema does not compile: {e}"))?;
        let properties = schema.get("properties").and_then(Value::as_object);
        let mut defaults = Map::new();
        let mut paths = Vec::new();
        for (name, property) in properties.into_iter().flatten() {
            if let Some(default) = property.get("default") {
                defaults.insert(name.clone(), default.clone());
            }
            if property.get("format").and_then(Value::as_str) == Some(WORKSPACE_PATH) {
                paths.push(name.clone());
            }
        }
        Ok(Self { validator, defaults, paths })
    }

    /// Fills in the defaults of top-level properties that are not there.
    pub fn fill_defaults(&self, input: &mut Value) {
        let Some(fields) = input.as_object_mut() else { return };
        for (name, default) in &self.defaults {
            if !fields.contains_key(name) {
                fields.insert(name.clone(), default.clone());
            }
        }
    }

    /// Top-level properties that are paths beneath `/workspace`.
    pub fn workspace_paths(&self) -> &[String] {
        &self.paths
    }

    /// Every mismatch, as field and message; a field is a dotted path, empty for the input itself.
    pub fn errors(&self, input: &Value) -> Vec<(String, String)> {
        self.validator.iter_errors(input).take(MAX_ERRORS).map(|e| (field(&e), words(&e))).collect()
    }

    /// Whether the input fits.
    pub fn fits(&self, input: &Value) -> bool {
        self.validator.is_valid(input)
    }
}

/// `/a/0/b` is `a.0.b`; a missing property is named itself rather than the object that lacks it.
fn field(error: &jsonschema::ValidationError<'_>) -> String {
    let at = error.instance_path().as_str().trim_start_matches('/').replace('/', ".");
    match error.kind() {
        jsonschema::error::ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
        }
        _ => at,
    }
}

/// The library's words repeat the whole value: a megabyte of code does not belong in an error.
fn words(error: &jsonschema::ValidationError<'_>) -> String {
    match error.kind() {
        jsonschema::error::ValidationErrorKind::Required { .. } => "is missing".into(),
        _ => error.masked_with("the value").to_string(),
    }
}

fn foreign_reference(schema: &Value) -> Option<&str> {
    match schema {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| match value.as_str() {
            Some(target) if matches!(name.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef") => {
                (!target.starts_with('#')).then_some(target)
            }
            _ => foreign_reference(value),
        }),
        Value::Array(items) => items.iter().find_map(foreign_reference),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
