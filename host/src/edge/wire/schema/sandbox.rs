//! Sandboxes.

use std::collections::BTreeMap;

use utoipa::{IntoParams, ToSchema};

/// A sandbox: the stable handle that a client holds.
#[derive(Debug, ToSchema)]
pub struct Sandbox {
    /// `sbx_` and a ULID in lower case.
    #[schema(example = "sbx_01k0r3v8e0c1h4m6q9s2t5w7xy")]
    pub id: String,
    /// `idle`, `starting`, `ready`, `stopping`, `failed` or `expired`; take an unknown one as transitional.
    #[schema(example = "idle")]
    pub status: String,
    /// Why it has failed, or what its start waits for.
    #[schema(required)]
    pub status_reason: Option<StatusReason>,
    /// Its profile.
    #[schema(example = "python-default")]
    pub profile: String,
    /// The locker that is its `/workspace`.
    #[schema(example = "lkr_01k0r3v8e0c1h4m6q9s2t5w7xy")]
    pub locker_id: String,
    /// For people.
    #[schema(required)]
    pub name: Option<String>,
    /// For selection.
    pub labels: BTreeMap<String, String>,
    /// What can be called, sorted.
    #[schema(example = json!(["filesystem", "python", "shell", "terminal"]))]
    pub capabilities: Vec<String>,
    /// Grows by one with each new session; 0 before the first.
    #[schema(minimum = 0)]
    pub session_seq: i64,
    /// When it was made.
    #[schema(format = DateTime, example = "2026-11-24T10:00:00.000Z")]
    pub created_at: String,
    /// When its TTL passes; null: never.
    #[schema(required, format = DateTime)]
    pub expires_at: Option<String>,
    /// When its session ends for want of calls; null while none runs.
    #[schema(required, format = DateTime)]
    pub idle_expires_at: Option<String>,
    /// On `GET …/{id}` of a running sandbox only.
    #[schema(required)]
    pub containers: Option<Vec<ContainerState>>,
}

/// Why a sandbox is as it is.
#[derive(Debug, ToSchema)]
pub struct StatusReason {
    /// For a program.
    pub code: String,
    /// For a person.
    pub message: String,
    /// Since when.
    #[schema(format = DateTime)]
    pub since: String,
}

/// A container of a running sandbox, from its last probe.
#[derive(Debug, ToSchema)]
pub struct ContainerState {
    /// Its name within the profile.
    pub name: String,
    /// What runs in it.
    #[schema(required)]
    pub runtime: Option<String>,
    /// `running`, `stopped` or `failed`.
    pub status: String,
    /// The runtime's version.
    #[schema(required)]
    pub version: Option<String>,
    /// What it offers.
    pub capabilities: Vec<String>,
    /// Null where it did not answer.
    #[schema(required)]
    pub healthy: Option<bool>,
    /// When that was found out.
    #[schema(required, format = DateTime)]
    pub checked_at: Option<String>,
}

/// A page of sandboxes, newest first.
#[derive(Debug, ToSchema)]
pub struct SandboxPage {
    /// The sandboxes.
    pub items: Vec<Sandbox>,
    /// For the next page; null on the last.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// What a new sandbox is to be. Unknown fields are ignored.
#[derive(Debug, ToSchema)]
#[schema(as = CreateSandbox, example = json!({ "profile": "python-default", "ttl": 3600, "labels": { "run": "7" }, "start": "lazy" }))]
pub struct CreateSandboxBody {
    /// Null: the tenant's default, else `python-default`.
    #[schema(min_length = 1, max_length = 64)]
    pub profile: Option<String>,
    /// An external locker by id; null: a managed one is made.
    #[schema(min_length = 1, max_length = 128)]
    pub locker_id: Option<String>,
    /// An external locker by name.
    #[schema(min_length = 1, max_length = 128)]
    pub locker: Option<String>,
    /// Seconds; null or 0: never, or the longest that the profile or tenant allows.
    #[schema(minimum = 0, maximum = 3_155_760_000_u64)]
    pub ttl: Option<i64>,
    /// For people.
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
    /// At most 32; keys `[A-Za-z0-9._/-]{1,63}` that do not start with `bay.`, values of at most 256 bytes.
    pub labels: Option<BTreeMap<String, String>>,
    /// For user processes only, over the profile's. At most 128 and 64 KiB in all; values never come back.
    pub env: Option<BTreeMap<String, String>>,
    /// `lazy`: nothing runs until the first call. `eager`: it starts at once. `wait`: the answer waits for that.
    #[schema(inline)]
    pub start: Option<StartMode>,
}

/// How much of the start a create waits for.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case", default = "eager")]
pub enum StartMode {
    /// Nothing runs until the first call.
    Lazy,
    /// It starts at once; the answer does not wait.
    Eager,
    /// The answer waits until it is ready, or the wait budget is spent.
    Wait,
}

/// A sandbox that was stopped.
#[derive(Debug, ToSchema)]
pub struct SandboxAction {
    /// What was done.
    #[schema(example = "stopped")]
    pub status: String,
    /// How it stands now.
    pub sandbox: Sandbox,
}

/// `limit` and `cursor` of a list, and its filters.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SandboxQuery {
    /// Most items of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// `idle`, `starting`, `ready`, `stopping`, `failed` or `expired`.
    #[param(inline)]
    pub status: Option<SandboxStatusWord>,
    /// `key=value`; may be repeated, all must hold.
    #[param(example = "run=7")]
    pub label: Option<Vec<String>>,
    /// Of this profile only.
    pub profile: Option<String>,
}

/// What a list of sandboxes can be filtered by.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum SandboxStatusWord {
    /// Nothing runs.
    Idle,
    /// A start is under way.
    Starting,
    /// It runs.
    Ready,
    /// An end is under way.
    Stopping,
    /// The last start failed.
    Failed,
    /// Its TTL has passed.
    Expired,
}

/// How long a look at a sandbox may wait.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LookQuery {
    /// `ready`: answer when it is ready or has failed, or the timeout has passed.
    #[param(inline)]
    pub wait: Option<WaitFor>,
    /// Seconds to wait.
    #[param(minimum = 0, maximum = 300, default = 30)]
    pub timeout: Option<u32>,
    /// Ask the containers now, with a bound of 2 s.
    pub probe: Option<bool>,
}

/// What to wait for.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum WaitFor {
    /// Ready or failed.
    Ready,
}

/// A JSON merge patch: what is absent stays, null takes away.
#[derive(Debug, ToSchema)]
#[schema(as = UpdateSandbox, example = json!({ "name": "report", "labels": { "team": "a", "old": null }, "expires_at": "2030-01-31T12:00:00.000Z" }))]
pub struct UpdateSandboxBody {
    /// For people.
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
    /// By key; null takes a label away, and null for all of them takes all away.
    pub labels: Option<BTreeMap<String, Option<String>>>,
    /// May shorten, never past `max_ttl`; null: never, where that is allowed.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Seconds, where the profile allows it; null: the profile's.
    #[schema(minimum = 1, maximum = 3_155_760_000_u64)]
    pub idle_timeout: Option<i64>,
}

/// How much longer a sandbox is to live.
#[derive(Debug, ToSchema)]
#[schema(as = ExtendTtl, example = json!({ "extend_by": 3600 }))]
pub struct ExtendTtlBody {
    /// Seconds, from now or from its end, whichever is later.
    #[schema(minimum = 1, maximum = 3_155_760_000_u64)]
    pub extend_by: i64,
}
