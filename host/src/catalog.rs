//! What the loaded adapters can do: every operation with its schemas compiled, and how an input is made ready.
//!
//! Schemas come from plugins. They are compiled without any resolver, so that a `$ref` can reach nothing.

use std::collections::BTreeMap;

use bay_plugin_host::{Manifest, OperationSpec};
use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult, Code};
use crate::path::{self, PathFault};

/// Most complaints about one input that an answer lists.
const MAX_ERRORS: usize = 32;
/// The format by which a schema says that a string is a path beneath `/workspace`.
const WORKSPACE_PATH: &str = "workspace-path";

/// One operation of one adapter.
pub struct Operation {
    /// As the adapter described it.
    pub spec: OperationSpec,
    /// The capability it belongs to.
    pub capability: String,
    validator: Validator,
    defaults: Vec<(String, Value)>,
    paths: Vec<String>,
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Operation({}.{})", self.capability, self.spec.name)
    }
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the input schema of {operation} is not usable: {reason}")]
pub struct BadSchema {
    operation: String,
    reason: String,
}

/// Every operation of one adapter, by capability and name.
#[derive(Debug, Default)]
pub struct Catalog {
    operations: BTreeMap<String, BTreeMap<String, Operation>>,
}

impl Catalog {
    /// Compiles a manifest's schemas.
    pub fn new(manifest: &Manifest) -> Result<Self, BadSchema> {
        let mut operations = BTreeMap::new();
        for capability in &manifest.capabilities {
            let mut named = BTreeMap::new();
            for spec in &capability.operations {
                named.insert(spec.name.clone(), Operation::new(&capability.name, spec)?);
            }
            operations.insert(capability.name.clone(), named);
        }
        Ok(Self { operations })
    }

    /// One operation.
    pub fn get(&self, capability: &str, operation: &str) -> Option<&Operation> {
        self.operations.get(capability)?.get(operation)
    }

    /// Names of the operations of a capability, sorted.
    pub fn names(&self, capability: &str) -> Vec<&str> {
        self.operations.get(capability).map_or(Vec::new(), |ops| ops.keys().map(String::as_str).collect())
    }
}

impl Operation {
    fn new(capability: &str, spec: &OperationSpec) -> Result<Self, BadSchema> {
        let bad = |reason: String| BadSchema { operation: format!("{capability}.{}", spec.name), reason };
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .build(&spec.input_schema)
            .map_err(|e| bad(e.to_string()))?;
        let empty = Map::new();
        let properties = spec.input_schema["properties"].as_object().unwrap_or(&empty);
        let defaults = properties
            .iter()
            .filter_map(|(name, s)| Some((name.clone(), s.get("default")?.clone())))
            .collect();
        let paths = properties
            .iter()
            .filter(|(_, s)| s["format"] == WORKSPACE_PATH)
            .map(|(name, _)| name.clone())
            .collect();
        Ok(Self { spec: spec.clone(), capability: capability.to_owned(), validator, defaults, paths })
    }

    /// Fills defaults, checks against the schema, normalises paths. Run on what a client sent and again on what
    /// rules made of it.
    pub fn prepare(&self, input: Value) -> ApiResult<Value> {
        let Value::Object(mut object) = input else {
            return Err(ApiError::new(Code::ValidationError, "the input must be a JSON object"));
        };
        for (name, default) in &self.defaults {
            object.entry(name).or_insert_with(|| default.clone());
        }
        let value = Value::Object(object);
        let errors: Vec<_> = self.validator.iter_errors(&value).take(MAX_ERRORS).map(complaint).collect();
        if !errors.is_empty() {
            return Err(ApiError::fields(&errors));
        }
        let Value::Object(mut object) = value else { return Ok(Value::Null) };
        for name in &self.paths {
            if let Some(Value::String(text)) = object.get_mut(name) {
                *text = path::normalise(text).map_err(|fault| invalid_path(name, fault))?;
            }
        }
        Ok(Value::Object(object))
    }
}

/// The answer to a path that cannot be one.
pub fn invalid_path(field: &str, fault: PathFault) -> ApiError {
    let words = match fault {
        PathFault::Empty => "must not be empty",
        PathFault::NullByte => "must not hold a NUL byte",
        PathFault::Absolute => "must be relative to /workspace",
        PathFault::Traversal => "must not climb out of /workspace",
    };
    ApiError::new(Code::InvalidPath, format!("`{field}` {words}"))
        .with(json!({ "field": field, "reason": fault.reason() }))
}

/// Field and words, without the value: it may be long, and it may be secret.
fn complaint(error: jsonschema::ValidationError<'_>) -> (String, String) {
    let mut field = error.instance_path().to_string().trim_start_matches('/').replace('/', ".");
    if let ValidationErrorKind::Required { property } = error.kind() {
        let name = property.as_str().unwrap_or_default();
        field = if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
        return (field, "is required".to_owned());
    }
    (field, error.masked().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(schema: Value) -> Operation {
        let spec = OperationSpec { name: "op".into(), input_schema: schema, ..OperationSpec::default() };
        Operation::new("cap", &spec).unwrap()
    }

    fn sample() -> Operation {
        operation(json!({ "type": "object", "required": ["path"], "properties": {
            "path": { "type": "string", "format": "workspace-path" },
            "limit": { "type": "integer", "minimum": 1, "default": 5 },
            "flag": { "type": "boolean" },
        }}))
    }

    #[test]
    fn defaults_are_filled_and_paths_normalised() {
        let ready = sample().prepare(json!({ "path": "./a//b/../c", "more": 1 })).unwrap();
        assert_eq!(ready, json!({ "path": "a/c", "limit": 5, "more": 1 }));
    }

    #[test]
    fn every_complaint_comes_at_once_and_echoes_no_value() {
        let e = sample().prepare(json!({ "limit": 0, "flag": "s3cret" })).unwrap_err();
        let fields: Vec<_> =
            e.details["errors"].as_array().unwrap().iter().map(|x| x["field"].as_str().unwrap()).collect();
        assert_eq!(fields.len(), 3, "{:?}", e.details);
        for field in ["path", "limit", "flag"] {
            assert!(fields.contains(&field), "{fields:?}");
        }
        assert!(!e.details.to_string().contains("s3cret"));
    }

    #[test]
    fn a_schema_cannot_make_bay_fetch_anything() {
        let spec = OperationSpec {
            name: "op".into(),
            input_schema: json!({ "$ref": "http://127.0.0.1:1/schema.json" }),
            ..OperationSpec::default()
        };
        assert!(Operation::new("cap", &spec).is_err());
    }
}
