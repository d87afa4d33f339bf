//! The document as it is served: the part that every Bay has, and what a tenant's plugins add to it.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::{IntoResponses as _, OpenApi as _};

use super::complete::{self, complete};
use super::operations::PluginOperation;
use super::shapes::{self, Shapes};
use crate::edge::handlers::capability::Call;
use crate::plugins::Plugins;

/// The OpenAPI document of this Bay.
#[derive(Debug)]
pub struct Document {
    whole: Value,
    bytes: Bytes,
}

impl Document {
    /// Completes what was gathered from the handlers.
    pub fn new(generated: &utoipa::openapi::OpenApi, plugins: &Plugins) -> Self {
        // Writing out a document of strings and maps does not fail.
        let mut generated = generated.clone();
        generated.merge(Shapes::openapi());
        let mut whole = serde_json::to_value(&generated).unwrap_or_default();
        shapes::fill(&mut whole, plugins);
        complete(&mut whole);
        let bytes = Bytes::from(whole.to_string());
        Self { whole, bytes }
    }

    /// Without what plugins add.
    pub fn fixed(&self) -> Bytes {
        self.bytes.clone()
    }

    /// With a path for each operation, but where there is a route of its own.
    pub fn with_operations(&self, operations: &[PluginOperation]) -> Value {
        let mut whole = self.whole.clone();
        let Some(paths) = whole.get_mut("paths").and_then(Value::as_object_mut) else { return whole };
        // A socket has a route of its own, with a GET.
        for operation in operations.iter().filter(|operation| !operation.spec.upgrade) {
            let path = format!("/v1/sandboxes/{{id}}/{}/{}", operation.capability, operation.spec.name);
            if self.whole["paths"].get(&path).is_some() {
                continue;
            }
            let Some(item) = paths.entry(&path).or_insert_with(|| json!({})).as_object_mut() else {
                continue;
            };
            // Another plugin may serve the same name in another profile: the first stands for both.
            if !item.contains_key("post") {
                item.insert("post".to_owned(), described(&path, operation).into());
            }
        }
        whole
    }
}

fn described(path: &str, operation: &PluginOperation) -> Map<String, Value> {
    let spec = &operation.spec;
    let schema = operation.output_schema();
    let mut answer = json!({ "description": "what the operation answers",
        "content": { "application/json": { "schema": schema } } });
    if spec.streams {
        answer["content"]["application/octet-stream"] = json!({ "schema": {} });
    }
    let mut responses = json!({ "200": answer });
    if spec.records {
        let id = json!({ "X-Execution-Id": { "$ref": "#/components/headers/ExecutionId" } });
        responses["200"]["headers"] = id.clone();
        responses["202"] = json!({ "description": "the execution goes on", "headers": id,
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Running" } } } });
    }
    for (status, errors) in Call::responses() {
        responses[status] = serde_json::to_value(errors).unwrap_or_default();
    }
    let mut described = Map::from_iter([
        ("tags".to_owned(), json!([operation.capability])),
        ("summary".to_owned(), spec.summary.clone().into()),
        ("description".to_owned(), format!("Served by the plugin `{}`.", operation.plugin).into()),
        (
            "requestBody".to_owned(),
            json!({ "required": true,
            "content": { "application/json": { "schema": operation.input_schema() } } }),
        ),
        ("responses".to_owned(), responses),
    ]);
    if spec.records {
        described.insert("parameters".to_owned(), json!([{ "$ref": complete::IDEMPOTENCY_KEY }]));
    }
    complete::one(path, "post", &mut described);
    described
}
