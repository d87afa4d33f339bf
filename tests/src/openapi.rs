//! Bay's own document, read as tests need it: every operation, who may call it, and a request that fits.

use serde_json::{Map, Value, json};

/// Methods of a path item, in the document's spelling.
const METHODS: &[&str] = &["get", "put", "post", "delete", "patch", "head", "options", "trace"];
/// How deep a schema is followed; the document has no schema that needs more.
const DEPTH: usize = 12;

/// One operation of the document.
#[derive(Debug, Clone)]
pub struct Operation {
    /// `GET`, …
    pub method: String,
    /// As in the document, with `{…}`.
    pub path: String,
    /// The operation object.
    pub spec: Value,
}

/// Who may call an operation, as its `security` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// A key with this scope.
    Scope(String),
    /// A key with this scope, or a token of the sandbox.
    Guest(String),
}

/// Every operation, in the order of the document.
pub fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, spec) in item.as_object().into_iter().flatten() {
            if METHODS.contains(&method.as_str()) {
                let method = method.to_uppercase();
                found.push(Operation { method, path: path.clone(), spec: spec.clone() });
            }
        }
    }
    found
}

impl Operation {
    /// `GET /v1/…`
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Who may call it; none where the document does not say.
    pub fn access(&self) -> Option<Access> {
        let ways = self.spec.get("security")?.as_array()?;
        let scope = |scheme: &str| {
            ways.iter().find_map(|way| Some(way.get(scheme)?.as_array()?.first()?.as_str()?.to_owned()))
        };
        if ways.is_empty() || ways.iter().any(|way| way.as_object().is_some_and(Map::is_empty)) {
            return Some(Access::Open);
        }
        let wanted = scope("bearer")?;
        // Both headers are the same key.
        (scope("key")? == wanted).then(|| match scope("sandbox_token") {
            Some(_) => Access::Guest(wanted),
            None => Access::Scope(wanted),
        })
    }

    /// Whether the document names this answer.
    pub fn answers(&self, status: u16) -> bool {
        self.spec["responses"].get(status.to_string()).is_some()
    }

    /// A body of JSON that fits its schema; none where it takes none, or another kind.
    pub fn body(&self, document: &Value) -> Option<Value> {
        let schema = self.spec["requestBody"]["content"].get("application/json")?.get("schema")?;
        Some(fitting(document, schema, DEPTH))
    }

    /// The query that it must have.
    pub fn query(&self, document: &Value) -> Vec<(String, String)> {
        let list = self.spec["parameters"].as_array().into_iter().flatten();
        list.filter(|p| p["in"] == "query" && p["required"] == true)
            .map(|p| {
                let value = fitting(document, &p["schema"], DEPTH);
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (p["name"].as_str().unwrap_or_default().to_owned(), text)
            })
            .collect()
    }

    /// Its path with every `{name}` replaced.
    pub fn target(&self, value: impl Fn(&str) -> String) -> String {
        let part = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            Some(name) => value(name.trim_start_matches('*')),
            None => part.to_owned(),
        };
        self.path.split('/').map(part).collect::<Vec<_>>().join("/")
    }
}

/// The smallest value that fits a schema, as far as the document's own schemas need it.
fn fitting(document: &Value, schema: &Value, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    if let Some(pointer) = schema["$ref"].as_str().and_then(|r| r.strip_prefix('#')) {
        return document.pointer(pointer).map_or(Value::Null, |s| fitting(document, s, depth - 1));
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(schemas) = schema[choice].as_array() {
            let plain = schemas.iter().find(|s| s["type"] != "null");
            return plain.map_or(Value::Null, |s| fitting(document, s, depth - 1));
        }
    }
    if let Some(example) = schema.get("example").or_else(|| schema["examples"].get(0)) {
        return example.clone();
    }
    if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    let kind = schema["type"].as_str().or_else(|| {
        schema["type"].as_array().into_iter().flatten().filter_map(Value::as_str).find(|t| *t != "null")
    });
    match kind {
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        Some("boolean") => json!(false),
        Some("array") => {
            let least = schema["minItems"].as_u64().unwrap_or(0);
            (0..least).map(|_| fitting(document, &schema["items"], depth - 1)).collect()
        }
        Some("string") => json!("x"),
        Some("object") => {
            let names = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let field =
                |name: &str| (name.to_owned(), fitting(document, &schema["properties"][name], depth - 1));
            Value::Object(names.map(field).collect())
        }
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(security: Value) -> Operation {
        Operation { method: "GET".into(), path: "/v1/a/{id}".into(), spec: json!({ "security": security }) }
    }

    #[test]
    fn who_may_call_is_read_from_security_and_nothing_is_guessed() {
        assert_eq!(with(json!([])).access(), Some(Access::Open));
        assert_eq!(with(json!([{}, { "bearer": ["ops"] }, { "key": ["ops"] }])).access(), Some(Access::Open));
        let keys = json!([{ "bearer": ["ops"] }, { "key": ["ops"] }]);
        assert_eq!(with(keys).access(), Some(Access::Scope("ops".into())));
        let guest = json!([{ "bearer": ["s"] }, { "key": ["s"] }, { "sandbox_token": ["python"] }]);
        assert_eq!(with(guest).access(), Some(Access::Guest("s".into())));
        assert_eq!(with(json!([{ "bearer": [] }])).access(), None);
        assert_eq!(Operation { spec: json!({}), ..with(json!([])) }.access(), None);
    }

    #[test]
    fn a_fitting_value_has_what_is_required() {
        let schema = json!({ "type": "object", "required": ["a", "b"], "properties": {
            "a": { "type": ["integer", "null"], "minimum": 3 }, "b": { "enum": ["x"] }, "c": { "type": "string" } } });
        assert_eq!(fitting(&json!({}), &schema, DEPTH), json!({ "a": 3, "b": "x" }));
    }
}
