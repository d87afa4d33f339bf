//! What the tenant's profiles can do.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use crate::app::App;
use crate::edge::caller::Caller;
use crate::edge::openapi::plugin_operations;
use crate::edge::wire::{Capabilities, CapabilityOffer, CapabilityOperation};

/// Every capability and operation
///
/// With its JSON Schemas and the plugin that serves it, as the profiles of the tenant offer it. An operation is called
/// by `POST /v1/sandboxes/{id}/{capability}/{operation}`.
#[utoipa::path(get, path = "/v1/capabilities", tag = "capabilities", responses((status = 200, description = "by name", body = Capabilities)))]
pub async fn list(State(app): State<Arc<App>>, Caller(context): Caller) -> Json<Capabilities> {
    let mut items: Vec<CapabilityOffer> = Vec::new();
    for found in plugin_operations(&app, &context.tenant) {
        let operation = CapabilityOperation {
            name: found.spec.name.clone(),
            summary: found.spec.summary.clone(),
            input_schema: found.input_schema(),
            output_schema: found.output_schema(),
            records: found.spec.records,
            streams: found.spec.streams,
            safe: found.spec.safe,
        };
        match items.last_mut().filter(|last| last.name == found.capability && last.plugin == found.plugin) {
            Some(last) => last.operations.push(operation),
            None => items.push(CapabilityOffer {
                name: found.capability,
                summary: found.summary,
                plugin: found.plugin,
                profiles: found.profiles,
                operations: vec![operation],
            }),
        }
    }
    Json(Capabilities { items })
}
