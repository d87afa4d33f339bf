//! Errors in the document: one schema, one example for each code, and for each route the codes it may answer with.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::complete::shared;
use crate::error::{ApiError, Code, Retry};

/// Adds codes to an operation's answers, and writes all of its error answers in one form.
pub(super) fn add(operation: &mut Map<String, Value>, common: &BTreeSet<Code>) {
    let Some(responses) = operation.entry("responses").or_insert_with(|| json!({})).as_object_mut() else {
        return;
    };
    let mut by_status: BTreeMap<u16, BTreeSet<Code>> = BTreeMap::new();
    for code in common.iter().copied().chain(own(responses)) {
        by_status.entry(code.status().as_u16()).or_default().insert(code);
    }
    for (status, codes) in by_status {
        responses.insert(status.to_string(), response(&codes));
    }
}

/// The codes that a handler's own annotation names: those of the examples of its answers.
fn own(responses: &Map<String, Value>) -> Vec<Code> {
    let named = responses.values().filter_map(|r| r["content"]["application/json"]["examples"].as_object());
    let names: BTreeSet<&String> = named.flat_map(Map::keys).collect();
    Code::ALL.iter().copied().filter(|code| names.iter().any(|name| *name == code.as_str())).collect()
}

fn response(codes: &BTreeSet<Code>) -> Value {
    let names: Vec<_> = codes.iter().map(|code| format!("`{}`", code.as_str())).collect();
    let example = |code: &Code| {
        (code.as_str().to_owned(), json!({ "$ref": format!("#/components/examples/{}", code.as_str()) }))
    };
    let examples: Map<String, Value> = codes.iter().map(example).collect();
    json!({ "description": names.join(", "), "content": { "application/json": {
        "schema": { "$ref": "#/components/schemas/Error" }, "examples": examples,
    } } })
}

/// The parts that operations refer to.
pub(super) fn components(document: &mut Value) {
    let Some(document) = document.as_object_mut() else { return };
    let Some(parts) = document.entry("components").or_insert_with(|| json!({})).as_object_mut() else {
        return;
    };
    let (parameters, headers) = shared();
    parts.insert("parameters".to_owned(), parameters);
    parts.insert("headers".to_owned(), headers);
    let example = |code: &Code| (code.as_str().to_owned(), example(*code));
    parts.insert("examples".to_owned(), Code::ALL.iter().map(example).collect::<Map<_, _>>().into());
    if let Some(schemas) = parts.entry("schemas").or_insert_with(|| json!({})).as_object_mut() {
        schemas.insert("Error".to_owned(), schema());
    }
}

/// The codes are an open list: a client treats one that it does not know by its status.
fn schema() -> Value {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "description": "What every answer but a 2xx is.", "type": "object", "required": ["error"],
        "properties": { "error": {
            "type": "object", "required": ["code", "message", "retryable", "request_id", "details"],
            "properties": {
                "code": { "type": "string", "examples": codes, "description": "For a program; more may come." },
                "message": { "type": "string", "description": "What happened and what to do, for a person." },
                "retryable": { "type": "boolean", "description": "The same request, unchanged, may succeed later \
                    and repeating it does no harm." },
                "request_id": { "type": "string", "format": "uuid", "description": "As `X-Request-Id`." },
                "details": { "type": "object", "description": "For a program; what is in it is the code's own." },
            },
        } },
    })
}

fn example(code: Code) -> Value {
    let (_, status, retry) = code.row();
    let body = ApiError::new(code, code.meaning()).body("019aa3c1-6f0e-7000-8000-000000000000", false);
    let retry = match retry {
        Retry::Never => "the same request fails again",
        Retry::Always => "may be tried again",
        Retry::IfSafe => "may be tried again where the request is safe or carried an Idempotency-Key",
    };
    json!({ "summary": format!("{status}: {}; {retry}", code.meaning()), "value": body })
}
