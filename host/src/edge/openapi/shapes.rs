//! Shapes of bodies that handlers read and write as plain JSON, by route: a handler whose annotation names a type says
//! it there, for all others it stands here. Fills gaps only.

use serde_json::{Value, json};
use utoipa::openapi::path::ParameterIn;
use utoipa::{IntoParams as _, OpenApi};

use super::operations::PluginOperation;
use crate::edge::wire::schema::{self, LookQuery, SandboxQuery};
use crate::plugins::Plugins;

/// The types that the rows below name.
#[derive(OpenApi)]
#[openapi(components(schemas(
    schema::Annotation,
    schema::Cleared,
    schema::CreateSandboxBody,
    schema::Execution,
    schema::ExtendTtlBody,
    schema::HistoryEntry,
    schema::HistoryPage,
    schema::Sandbox,
    schema::SandboxAction,
    schema::SandboxPage,
    schema::UpdateSandboxBody,
)))]
pub(super) struct Shapes;

/// Method, path beneath `/v1/sandboxes`, body, answer.
const ROWS: &[(&str, &str, Option<&str>, &str)] = &[
    ("post", "", Some("CreateSandbox"), "Sandbox"),
    ("get", "", None, "SandboxPage"),
    ("get", "/{id}", None, "Sandbox"),
    ("patch", "/{id}", Some("UpdateSandbox"), "Sandbox"),
    ("post", "/{id}/extend_ttl", Some("ExtendTtl"), "Sandbox"),
    ("post", "/{id}/keepalive", None, "SandboxAction"),
    ("post", "/{id}/stop", None, "SandboxAction"),
    ("post", "/{id}/recover", None, "SandboxAction"),
    ("get", "/{id}/executions/{execution}", None, "Execution"),
    ("post", "/{id}/executions/{execution}/cancel", None, "Execution"),
    ("get", "/{id}/history", None, "HistoryPage"),
    ("get", "/{id}/history/last", None, "HistoryEntry"),
    ("get", "/{id}/history/{execution}", None, "HistoryEntry"),
    ("patch", "/{id}/history/{execution}", Some("Annotation"), "HistoryEntry"),
    ("delete", "/{id}/history", None, "Cleared"),
];

/// The plugin whose operations some routes are in the dress of, where an operator did not replace it.
const ADAPTER: &str = "adapter-ship";

/// Method, path beneath a sandbox, and the operation that the route is.
const DRESSED: &[(&str, &str, &str, &str)] = &[
    ("get", "filesystem/files", "filesystem", "read_file"),
    ("put", "filesystem/files", "filesystem", "write_file"),
    ("patch", "filesystem/files", "filesystem", "edit_file"),
    ("delete", "filesystem/files", "filesystem", "delete_file"),
    ("get", "filesystem/directories", "filesystem", "list_dir"),
    ("get", "filesystem/download", "filesystem", "download"),
    ("get", "shell/processes", "shell", "processes"),
    ("get", "shell/processes/{process}", "shell", "process_output"),
    ("post", "shell/processes/{process}/stdin", "shell", "process_stdin"),
    ("delete", "shell/processes/{process}", "shell", "process_kill"),
];

/// Fills in what annotations leave open.
pub(super) fn fill(document: &mut Value, plugins: &Plugins) {
    for (method, tail, body, answer) in ROWS {
        let Some(route) = route(document, method, &format!("/v1/sandboxes{tail}")) else { continue };
        if let Some(body) = body {
            let required = !(*method == "post" && tail.is_empty());
            set_body(route, &reference(body), required);
        }
        set_answer(route, json!({ "application/json": { "schema": reference(answer) } }));
    }
    queries(document);
    let Some(adapter) = plugins.adapter(ADAPTER) else { return };
    for (method, tail, capability, name) in DRESSED {
        let Some(operation) = adapter.catalog.get(capability, name) else { continue };
        let Some(route) = route(document, method, &format!("/v1/sandboxes/{{id}}/{tail}")) else { continue };
        let described = PluginOperation {
            capability: (*capability).to_owned(),
            summary: String::new(),
            plugin: ADAPTER.to_owned(),
            profiles: Vec::new(),
            spec: operation.spec.clone(),
        };
        dress(route, &described, matches!(*method, "get" | "delete"));
    }
}

fn route<'d>(document: &'d mut Value, method: &str, path: &str) -> Option<&'d mut Value> {
    document.get_mut("paths")?.get_mut(path)?.get_mut(method)
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Whether a schema says nothing.
fn is_free(schema: &Value) -> bool {
    schema.as_object().is_none_or(|fields| fields.keys().all(|k| k == "description" || k == "example"))
}

fn set_body(route: &mut Value, schema: &Value, required: bool) {
    if is_free(&route["requestBody"]["content"]["application/json"]["schema"]) {
        let example = route["requestBody"]["content"]["application/json"].get("example").cloned();
        route["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": schema } } });
        if let Some(example) = example {
            route["requestBody"]["content"]["application/json"]["example"] = example;
        }
    }
}

fn set_answer(route: &mut Value, content: Value) {
    for status in ["200", "201"] {
        if let Some(answer) =
            route["responses"].get_mut(status).filter(|answer| answer.get("content").is_none())
        {
            answer["content"] = content.clone();
        }
    }
}

/// Parameters of the two routes whose handlers read a query of several.
fn queries(document: &mut Value) {
    let of = |list: Vec<utoipa::openapi::path::Parameter>| serde_json::to_value(list).unwrap_or_default();
    let rows = [
        ("/v1/sandboxes", of(SandboxQuery::into_params(|| Some(ParameterIn::Query)))),
        ("/v1/sandboxes/{id}", of(LookQuery::into_params(|| Some(ParameterIn::Query)))),
    ];
    for (path, parameters) in rows {
        if let (Some(route), Value::Array(parameters)) = (route(document, "get", path), parameters) {
            add_parameters(route, parameters);
        }
    }
}

fn add_parameters(route: &mut Value, more: Vec<Value>) {
    let mut list = route["parameters"].as_array().cloned().unwrap_or_default();
    for parameter in more {
        if list.iter().all(|given| given["name"] != parameter["name"]) {
            list.push(parameter);
        }
    }
    route["parameters"] = list.into();
}

/// Gives a route the parameters or the body, and the answer, of its operation.
fn dress(route: &mut Value, operation: &PluginOperation, by_query: bool) {
    let input = operation.input_schema();
    let is_given = route["parameters"].as_array().into_iter().flatten().any(|p| p["in"] == "query");
    if !by_query {
        set_body(route, &input, true);
    } else if !is_given {
        add_parameters(route, query_parameters(&input));
    }
    set_answer(
        route,
        if operation.spec.streams {
            json!({ "application/octet-stream": { "schema": {} }, "application/x-tar": { "schema": {} } })
        } else {
            json!({ "application/json": { "schema": operation.output_schema() } })
        },
    );
    route["summary"] = operation.spec.summary.clone().into();
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
    // The process is named by the path.
    properties.filter(|(name, _)| *name != "process_id").map(parameter).collect()
}
