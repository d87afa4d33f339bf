//! JSON that came from a guest.

use serde_json::Value;

/// Deepest nesting: nothing that Bay exchanges comes near it, and recursion over it must not end a thread's stack.
const MAX_DEPTH: usize = 64;

/// Parses and bounds a guest's JSON. The error is for the log.
pub(crate) fn parse(text: &str, what: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("{what} is not JSON: {e}"))?;
    if deeper_than(&value, MAX_DEPTH) {
        return Err(format!("{what} is nested more than {MAX_DEPTH} levels deep"));
    }
    Ok(value)
}

/// As [`parse`], for what must be an object.
pub(crate) fn parse_object(text: &str, what: &str) -> Result<Value, String> {
    let value = parse(text, what)?;
    if value.is_object() { Ok(value) } else { Err(format!("{what} is not a JSON object")) }
}

fn deeper_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|v| deeper_than(v, levels - 1)),
        Value::Object(fields) => levels == 0 || fields.values().any(|v| deeper_than(v, levels - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Text of a guest that a person will read: no control characters but line breaks and tabs, and bounded.
pub(crate) fn message(text: &str, most: usize) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')) {
        if out.len() + c.len_utf8() > most {
            break;
        }
        out.push(c);
    }
    out
}
