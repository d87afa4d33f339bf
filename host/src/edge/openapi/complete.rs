//! What every route has in common, added once the document is put together: who may call it, the headers that go
//! with every request and answer, and the errors that any route may answer with.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::access::{self, Access};
use super::errors;
use crate::error::Code;

/// The methods of a path item; its other keys are no operations.
pub(super) const METHODS: &[&str] = &["get", "put", "post", "delete", "patch", "head", "options", "trace"];

/// The parameter by which an operation says that it honours an `Idempotency-Key`.
pub(super) const IDEMPOTENCY_KEY: &str = "#/components/parameters/IdempotencyKey";

/// Completes every operation of a document.
pub(super) fn complete(document: &mut Value) {
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    for (path, item) in paths.iter_mut() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if let (true, Some(operation)) = (METHODS.contains(&method.as_str()), operation.as_object_mut()) {
                one(path, method, operation);
            }
        }
    }
    errors::components(document);
}

/// Completes one operation.
pub(super) fn one(path: &str, method: &str, operation: &mut Map<String, Value>) {
    let access = access::of(path);
    if let Some(access) = access {
        operation.insert("security".to_owned(), access.security());
    } else {
        operation.remove("security");
    }
    operation.insert("operationId".to_owned(), operation_id(path, method).into());
    parameters(path, operation);
    let codes = common(path, method, operation, access);
    errors::add(operation, &codes);
    answers(path, operation, access.is_some_and(Access::is_guarded));
}

/// Method and path as one name: two handlers of two files may share a function's name.
fn operation_id(path: &str, method: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty() && *w != "v1");
    words.fold(method.to_owned(), |id, word| format!("{id}_{word}"))
}

fn parameters(path: &str, operation: &mut Map<String, Value>) {
    let Some(list) = operation.entry("parameters").or_insert_with(|| json!([])).as_array_mut() else {
        return;
    };
    let has = |list: &[Value], name: &str| {
        list.iter().any(|p| p["name"].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)))
    };
    // Whatever stands in the pattern is a parameter, whether or not the handler says more of it.
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let name = name.trim_start_matches('*');
        if !has(list, name) {
            list.push(
                json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
            );
        }
    }
    for parameter in list.iter_mut().filter(|p| p["name"] == "Idempotency-Key") {
        *parameter = json!({ "$ref": IDEMPOTENCY_KEY });
    }
    if !has(list, "X-Request-Id") {
        list.push(json!({ "$ref": "#/components/parameters/ClientRequestId" }));
    }
}

fn is_keyed(operation: &Map<String, Value>) -> bool {
    let list = operation.get("parameters").and_then(Value::as_array);
    list.into_iter().flatten().any(|p| p["$ref"] == IDEMPOTENCY_KEY)
}

/// The errors that a route may answer with for what it is, not for what it does.
fn common(
    path: &str,
    method: &str,
    operation: &Map<String, Value>,
    access: Option<Access>,
) -> BTreeSet<Code> {
    // A Host or Origin that is not on the list; a bug.
    let mut codes = BTreeSet::from([Code::Forbidden, Code::InternalError]);
    if path.starts_with("/v1/") {
        // A query string that does not decode is refused wherever one is read.
        codes.extend([Code::ValidationError, Code::RateLimited, Code::Overloaded, Code::Unavailable]);
    }
    if path == "/openapi.json" {
        codes.insert(Code::RateLimited);
    }
    if access.is_some_and(Access::is_guarded) {
        codes.extend([Code::Unauthorized, Code::RateLimited]);
    }
    if path.contains('{') {
        codes.insert(Code::NotFound);
    }
    if operation.contains_key("requestBody") || matches!(method, "post" | "put" | "patch") {
        codes.extend([Code::ValidationError, Code::PayloadTooLarge, Code::UnsupportedMediaType]);
    }
    if is_keyed(operation) {
        codes.insert(Code::Conflict);
    }
    if path.starts_with("/v1/sandboxes") || path.starts_with("/v1/lockers") {
        codes.extend([Code::DeniedByRule, Code::PluginError]);
    }
    codes
}

/// Headers of every answer.
fn answers(path: &str, operation: &mut Map<String, Value>, guarded: bool) {
    let keyed = is_keyed(operation);
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    let header = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    for (status, response) in responses.iter_mut() {
        let Some(response) = response.as_object_mut() else { continue };
        let Some(headers) = response.entry("headers").or_insert_with(|| json!({})).as_object_mut() else {
            continue;
        };
        headers.insert("X-Request-Id".to_owned(), header("RequestId"));
        if guarded && path.starts_with("/v1/") && status != "401" {
            for name in ["Limit", "Remaining", "Reset"] {
                headers.insert(format!("X-RateLimit-{name}"), header(&format!("RateLimit{name}")));
            }
        }
        match status.as_str() {
            "401" => {
                headers.insert("WWW-Authenticate".to_owned(), header("WwwAuthenticate"));
            }
            "429" | "503" => {
                headers.insert("Retry-After".to_owned(), header("RetryAfter"));
            }
            "200" | "201" | "202" if keyed => {
                headers.insert("Idempotency-Replayed".to_owned(), header("IdempotencyReplayed"));
            }
            _ => {}
        }
    }
}

/// Parameters and headers that operations refer to.
pub(super) fn shared() -> (Value, Value) {
    let text = |pattern: &str, max: u32| json!({ "type": "string", "minLength": 1, "maxLength": max, "pattern": pattern });
    let whole = json!({ "type": "integer", "minimum": 0 });
    let header = |description: &str, schema: Value| json!({ "description": description, "schema": schema });
    let parameters = json!({
        "IdempotencyKey": { "name": "Idempotency-Key", "in": "header", "required": false,
            "schema": text("^[!-~]+$", 255), "example": "order-7-try-1",
            "description": "The same key and body again give the first answer and do nothing; another body: 409." },
        "ClientRequestId": { "name": "X-Request-Id", "in": "header", "required": false,
            "schema": text("^[!-~]+$", 128),
            "description": "The client's own name for the request; kept beside Bay's as `client_request_id`." },
    });
    let headers = json!({
        "RequestId": { "description": "Bay's own id of the request (UUIDv7).", "required": true,
            "schema": { "type": "string", "format": "uuid" } },
        "WwwAuthenticate": header("`Bearer`", json!({ "type": "string" })),
        "RetryAfter": header("Seconds to wait, where waiting helps.", whole.clone()),
        "RateLimitLimit": header("Requests that may come at once.", whole.clone()),
        "RateLimitRemaining": header("How many of them are left.", whole.clone()),
        "RateLimitReset": header("Seconds until all of them are there again.", whole),
        "ExecutionId": header("The execution that this call is.", json!({ "type": "string" })),
        "IdempotencyReplayed": header("`true`: this is the first answer again.", json!({ "type": "string" })),
    });
    (parameters, headers)
}
