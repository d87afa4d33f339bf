//! Profiles, health.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// One word.
#[derive(Debug, ToSchema)]
pub struct Word {
    /// `ok` of `/health`; `ready` or `not_ready` of `/ready`.
    #[schema(example = "ok")]
    pub status: String,
    /// `/ready`, with scope `ops`: part by part.
    #[schema(nullable = false)]
    pub parts: Option<BTreeMap<String, Value>>,
}

/// What sandboxes may be made of.
#[derive(Debug, ToSchema)]
pub struct Profile {
    /// Its name.
    #[schema(example = "python-default")]
    pub id: String,
    /// Of its first container, for drivers that have images.
    #[schema(required)]
    pub image: Option<String>,
    /// Of its first container.
    #[schema(required)]
    pub resources: Option<Resources>,
    /// Everything its containers offer, sorted.
    pub capabilities: Vec<String>,
    /// Seconds without a call after which a session ends.
    pub idle_timeout: i64,
    /// Longest TTL in seconds; null: none.
    #[schema(required)]
    pub max_ttl: Option<i64>,
    /// For people.
    #[schema(required)]
    pub description: Option<String>,
    /// With `detail`.
    #[schema(nullable = false)]
    pub containers: Option<Vec<ProfileContainer>>,
    /// With `detail`: what the driver here can do beyond the contract.
    #[schema(nullable = false)]
    pub features: Option<Vec<String>>,
}

/// Bounds of a container.
#[derive(Debug, ToSchema)]
pub struct Resources {
    /// Cores.
    pub cpus: f64,
    /// Bytes.
    pub memory: i64,
}

/// A container of a profile.
#[derive(Debug, ToSchema)]
pub struct ProfileContainer {
    /// Its name within the profile.
    pub name: String,
    /// Where it has one.
    #[schema(required)]
    pub image: Option<String>,
    /// What it offers.
    pub capabilities: Vec<String>,
    /// Which of them it offers before any other container.
    pub primary_for: Vec<String>,
    /// What it may reach: `none`, `egress` or `internal`.
    #[schema(example = "egress")]
    pub network: String,
    /// The plugin that speaks to its runtime.
    pub adapter: String,
}

/// The tenant's profiles.
#[derive(Debug, ToSchema)]
pub struct ProfileList {
    /// By id.
    pub items: Vec<Profile>,
}
