//! `GET /v1/capabilities`.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// What the tenant's profiles can do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Capabilities {
    /// By name, then by plugin.
    pub items: Vec<CapabilityOffer>,
}

/// A capability as one plugin serves it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Capability)]
pub struct CapabilityOffer {
    /// The `{capability}` of its paths.
    #[schema(example = "python")]
    pub name: String,
    /// One line for a person.
    pub summary: String,
    /// The plugin that serves it.
    #[schema(example = "adapter-ship")]
    pub plugin: String,
    /// The profiles that offer it so.
    pub profiles: Vec<String>,
    /// What can be called.
    pub operations: Vec<CapabilityOperation>,
}

/// An operation of a capability.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operation)]
pub struct CapabilityOperation {
    /// The `{operation}` of its path.
    #[schema(example = "exec")]
    pub name: String,
    /// One line for a person.
    pub summary: String,
    /// JSON Schema (2020-12) of the body.
    #[schema(value_type = Object)]
    pub input_schema: Value,
    /// JSON Schema (2020-12) of the answer.
    #[schema(value_type = Object)]
    pub output_schema: Value,
    /// Each call is an execution with an id.
    pub records: bool,
    /// The answer may be a stream of bytes.
    pub streams: bool,
    /// Repeating a call does no harm.
    pub safe: bool,
}
