use serde_json::json;

use super::*;

fn exec() -> Schema {
    Schema::compile(&json!({
        "type": "object",
        "required": ["code"],
        "properties": {
            "code": { "type": "string" },
            "timeout": { "type": "integer", "minimum": 1, "maximum": 3600, "default": 30 },
            "cwd": { "type": ["string", "null"], "format": "workspace-path" },
            "env": { "type": "object", "additionalProperties": { "type": "string" } },
        },
    }))
    .unwrap()
}

#[test]
fn defaults_are_filled_in_and_nothing_is_overwritten() {
    let mut input = json!({ "code": "1", "timeout": null });
    exec().fill_defaults(&mut input);
    assert_eq!(input, json!({ "code": "1", "timeout": null }));
    let mut input = json!({ "code": "1" });
    exec().fill_defaults(&mut input);
    assert_eq!(input, json!({ "code": "1", "timeout": 30 }));
}

#[test]
fn every_mismatch_is_named_at_once() {
    let errors = exec().errors(&json!({ "timeout": 0, "env": { "A": 1 } }));
    let mut fields: Vec<_> = errors.iter().map(|(f, _)| f.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["code", "env.A", "timeout"]);
    assert!(exec().errors(&json!([]))[0].0.is_empty());
    assert!(exec().fits(&json!({ "code": "" })));
}

#[test]
fn a_message_does_not_repeat_the_value() {
    let errors = exec().errors(&json!({ "code": "1", "env": { "TOKEN": ["secret-secret"] } }));
    assert!(!errors[0].1.contains("secret"), "{errors:?}");
}

#[test]
fn paths_are_found() {
    assert_eq!(exec().workspace_paths(), ["cwd"]);
}

#[test]
fn references_to_elsewhere_are_refused() {
    for target in ["http://169.254.169.254/", "file:///etc/passwd", "other.json"] {
        let schema = json!({ "type": "object", "properties": { "x": { "anyOf": [{ "$ref": target }] } } });
        let words = Schema::compile(&schema).unwrap_err();
        assert!(words.contains(target), "{words}");
    }
    let own = json!({ "type": "object", "$defs": { "n": { "type": "integer" } },
        "properties": { "x": { "$ref": "#/$defs/n" } } });
    assert!(!Schema::compile(&own).unwrap().fits(&json!({ "x": "a" })));
}

#[test]
fn a_pattern_cannot_take_minutes() {
    let schema = json!({ "type": "object", "properties": { "x": { "pattern": "^(a+)+$" } } });
    let started = std::time::Instant::now();
    assert!(!Schema::compile(&schema).unwrap().fits(&json!({ "x": format!("{}!", "a".repeat(5000)) })));
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    let back = json!({ "type": "object", "properties": { "x": { "pattern": "(a)\\1" } } });
    assert!(Schema::compile(&back).is_err(), "back references need backtracking");
}

#[test]
fn what_is_no_schema_says_so() {
    assert!(Schema::compile(&json!({ "type": "objekt" })).unwrap_err().contains("does not compile"));
    assert!(Schema::compile(&json!({ "title": "x".repeat(MAX_SCHEMA) })).unwrap_err().contains("larger"));
}
