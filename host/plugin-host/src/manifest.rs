//! What an adapter says of itself, checked before anyone believes it.

use std::collections::HashSet;

use crate::schema::Schema;
use crate::{Manifest, OperationSpec};

/// Bounds of a manifest: it is shown to every client that asks what there is.
const MAX_CAPABILITIES: usize = 32;
const MAX_OPERATIONS: usize = 64;
const MAX_WANTS: usize = 32;
const MAX_NAME: usize = 40;
const MAX_GRANT_NAME: usize = 64;
const MAX_SUMMARY: usize = 1024;

/// Checks everything; the error is for the operator.
pub(crate) fn check(manifest: &Manifest) -> Result<(), String> {
    at_most("capabilities", manifest.capabilities.len(), MAX_CAPABILITIES)?;
    at_most("wanted grants", manifest.wants.len(), MAX_WANTS)?;
    if manifest.capabilities.is_empty() {
        return Err("it has no capability".into());
    }
    let mut seen = HashSet::new();
    for capability in &manifest.capabilities {
        name(&capability.name)?;
        summary(&capability.summary)?;
        if !seen.insert(&capability.name) {
            return Err(format!("capability `{}` stands there twice", capability.name));
        }
        at_most("operations of one capability", capability.operations.len(), MAX_OPERATIONS)?;
        if capability.operations.is_empty() {
            return Err(format!("capability `{}` has no operation", capability.name));
        }
        let mut operations = HashSet::new();
        for operation in &capability.operations {
            let whole = format!("{}.{}", capability.name, operation.name);
            if !operations.insert(&operation.name) {
                return Err(format!("operation `{whole}` stands there twice"));
            }
            check_operation(operation).map_err(|e| format!("operation `{whole}`: {e}"))?;
        }
    }
    let mut wants = HashSet::new();
    for want in &manifest.wants {
        summary(&want.reason)?;
        if !grant_name(&want.name) || !wants.insert(&want.name) {
            return Err(format!(
                "`{}` is no name of a grant, or stands there twice",
                want.name.escape_debug()
            ));
        }
    }
    Ok(())
}

fn check_operation(operation: &OperationSpec) -> Result<(), String> {
    name(&operation.name)?;
    summary(&operation.summary)?;
    if operation.input_schema.get("type").and_then(serde_json::Value::as_str) != Some("object") {
        return Err("its input schema is not of type object".into());
    }
    let input = Schema::compile(&operation.input_schema).map_err(|e| format!("input: {e}"))?;
    Schema::compile(&operation.output_schema).map_err(|e| format!("output: {e}"))?;
    // A default that does not fit would make every call that leaves the property out invalid.
    let mut defaults = serde_json::json!({});
    input.fill_defaults(&mut defaults);
    let required = |(field, words): &(String, String)| words == "is missing" && !field.contains('.');
    match input.errors(&defaults).iter().find(|e| !required(e)) {
        Some((field, words)) => Err(format!("its own default of `{field}` does not fit: {words}")),
        None => Ok(()),
    }
}

/// Names become parts of URLs, metrics and tool names.
fn name(name: &str) -> Result<(), String> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if first && name.len() <= MAX_NAME && name.bytes().all(ok) {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_NAME).collect();
    Err(format!("`{}` is no name: 1 to {MAX_NAME} of a-z, 0-9 and `_`, a letter first", shown.escape_debug()))
}

fn grant_name(name: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= MAX_GRANT_NAME && name.bytes().all(ok)
}

fn summary(text: &str) -> Result<(), String> {
    if text.len() <= MAX_SUMMARY && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("a summary or reason is longer than {MAX_SUMMARY} bytes or more than one line"))
}

fn at_most(what: &str, count: usize, most: usize) -> Result<(), String> {
    if count <= most { Ok(()) } else { Err(format!("it has {count} {what}; at most {most} are allowed")) }
}
