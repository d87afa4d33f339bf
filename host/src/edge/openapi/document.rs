//! The document as it is served: the part that every Bay has, and what a tenant's plugins add to it.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::IntoResponses as _;

use super::complete::{self, complete};
use super::operations::PluginOperation;
use crate::edge::handlers::capability::Call;
use crate::plugins::Plugins;

/// The plugin whose operations the file routes are dressed in, where an operator did not replace it.
const FILES: &str = "adapter-ship";

/// File routes: method, path beneath a sandbox, and the operation of `filesystem` that each is.
const FILE_ROUTES: &[(&str, &str, &str)] = &[
    ("get", "files", "read_file"),
    ("put", "files", "write_file"),
    ("delete", "files", "delete_file"),
    ("get", "directories", "list_dir"),
    ("get", "download", "download"),
];

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
        let mut whole = serde_json::to_value(generated).unwrap_or_default();
        file_routes(&mut whole, plugins);
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
        for operation in operations {
            let path = format!("/v1/sandboxes/{{id}}/{}/{}", operation.capability, operation.spec.name);
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

/// Gives the file routes the parameters, bodies and answers of their operations, where a handler says none.
fn file_routes(whole: &mut Value, plugins: &Plugins) {
    let Some(adapter) = plugins.adapter(FILES) else { return };
    for (method, tail, name) in FILE_ROUTES {
        let Some(operation) = adapter.catalog.get("filesystem", name) else { continue };
        let path = format!("/v1/sandboxes/{{id}}/filesystem/{tail}");
        let Some(route) = whole["paths"].get_mut(&path).and_then(|item| item.get_mut(*method)) else {
            continue;
        };
        let described = PluginOperation {
            capability: "filesystem".to_owned(),
            summary: String::new(),
            plugin: FILES.to_owned(),
            profiles: Vec::new(),
            spec: operation.spec.clone(),
        };
        dress(route, &described, matches!(*method, "get" | "delete"));
    }
}

fn dress(route: &mut Value, operation: &PluginOperation, by_query: bool) {
    let input = operation.input_schema();
    if by_query {
        let given = route["parameters"].as_array().cloned().unwrap_or_default();
        let mut parameters = given.clone();
        parameters.extend(
            query_parameters(&input).into_iter().filter(|p| given.iter().all(|g| g["name"] != p["name"])),
        );
        route["parameters"] = parameters.into();
    } else if route.get("requestBody").is_none() {
        route["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": input } } });
    }
    if let Some(answer) = route["responses"].get_mut("200").filter(|answer| answer.get("content").is_none()) {
        answer["content"] = if operation.spec.streams {
            json!({ "application/octet-stream": { "schema": {} } })
        } else {
            json!({ "application/json": { "schema": operation.output_schema() } })
        };
    }
    if let Some(route) = route.as_object_mut() {
        route.insert("summary".to_owned(), operation.spec.summary.clone().into());
        route.remove("description");
    }
}

/// An operation's input as parameters of a query string, which knows no null.
fn query_parameters(input: &Value) -> Vec<Value> {
    let required = |name: &str| input["required"].as_array().is_some_and(|r| r.iter().any(|x| x == name));
    let properties = input["properties"].as_object().into_iter().flatten();
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let mut parameter = json!({ "name": name, "in": "query", "required": required(name) });
        if let Some(fields) = schema.as_object_mut() {
            parameter["description"] = fields.remove("description").unwrap_or_default();
            if let Some(types) = fields.get("type").and_then(Value::as_array) {
                let plain = types.iter().find(|t| *t != "null").cloned();
                fields.insert("type".to_owned(), plain.unwrap_or_default());
            }
            if fields.get("default").is_some_and(Value::is_null) {
                fields.remove("default");
            }
        }
        parameter["schema"] = schema;
        parameter
    };
    properties.map(parameter).collect()
}
