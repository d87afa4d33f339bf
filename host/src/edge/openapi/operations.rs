//! What the plugins of a tenant's profiles describe, for its document and its list of capabilities.

use std::collections::BTreeMap;

use bay_plugin_host::OperationSpec;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::auth::Tenant;

/// One operation of one plugin, as some profiles offer it.
#[derive(Debug, Clone)]
pub struct PluginOperation {
    /// The capability it belongs to.
    pub capability: String,
    /// The capability in one line.
    pub summary: String,
    /// The plugin's name.
    pub plugin: String,
    /// The profiles that offer it, by id.
    pub profiles: Vec<String>,
    /// As the plugin describes it.
    pub spec: OperationSpec,
}

impl PluginOperation {
    /// Its input, with what the host reads of every execution.
    pub fn input_schema(&self) -> Value {
        let mut schema = plain(&self.spec.input_schema);
        if self.spec.records {
            add(&mut schema, &[], host_input());
        }
        schema
    }

    /// Its answer, with what the host adds to every execution.
    pub fn output_schema(&self) -> Value {
        let mut schema = plain(&self.spec.output_schema);
        if self.spec.records {
            add(&mut schema, &["execution_id", "session_seq"], host_output());
        }
        schema
    }
}

/// Every operation that a tenant can call, by capability, plugin and name.
pub fn plugin_operations(app: &App, tenant: &Tenant) -> Vec<PluginOperation> {
    let plugins = app.plugins.load();
    let mut offered: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for profile in app.profiles.list(tenant) {
        for container in &profile.containers {
            for capability in &container.capabilities {
                let by = offered.entry((capability.clone(), container.adapter.clone())).or_default();
                if by.last() != Some(&profile.id) {
                    by.push(profile.id.clone());
                }
            }
        }
    }
    let mut found = Vec::new();
    for ((capability, plugin), profiles) in offered {
        let Some(adapter) = plugins.adapter(&plugin) else { continue };
        let described = adapter.plugin.manifest().capabilities.iter().find(|c| c.name == capability);
        let Some(described) = described else { continue };
        let mut specs: Vec<_> = described.operations.iter().collect();
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        found.extend(specs.into_iter().map(|spec| PluginOperation {
            capability: capability.clone(),
            summary: described.summary.clone(),
            plugin: plugin.clone(),
            profiles: profiles.clone(),
            spec: spec.clone(),
        }));
    }
    found
}

/// A schema without the name of its dialect, which the document names for all.
fn plain(schema: &Value) -> Value {
    let mut schema = schema.clone();
    strip(&mut schema);
    schema
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if object.get("$schema").is_some_and(Value::is_string) {
                object.remove("$schema");
            }
            object.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Adds properties that a schema does not have itself.
fn add(schema: &mut Value, required: &[&str], more: Map<String, Value>) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(properties) = object.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
        for (name, property) in more {
            properties.entry(name).or_insert(property);
        }
    }
    if let Some(list) = object.entry("required").or_insert_with(|| json!([])).as_array_mut() {
        for name in required {
            if !list.iter().any(|have| have == name) {
                list.push(json!(name));
            }
        }
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn host_input() -> Map<String, Value> {
    let note = |what: &str| json!({ "type": ["string", "null"], "maxLength": 4096, "description": what });
    fields(json!({
        "wait": { "type": ["integer", "null"], "minimum": 0, "maximum": 3600,
            "description": "Seconds the answer waits for the end of the work; past it 202. Default: its timeout and 5." },
        "description": note("Kept in the history."),
        "tags": note("Kept in the history."),
        "expect_session": { "type": ["integer", "null"], "minimum": 0,
            "description": "Run only in the session of this number, else 409 `state_lost`." },
    }))
}

fn host_output() -> Map<String, Value> {
    fields(json!({
        "execution_id": { "type": "string", "description": "`exe_…`" },
        "session_seq": { "type": "integer", "minimum": 0, "description": "The session it ran in." },
    }))
}
