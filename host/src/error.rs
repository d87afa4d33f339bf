//! The one table of errors a client can see, and what inside Bay becomes which.
//!
//! Domain errors know nothing of HTTP; this module maps them. The message of an [`ApiError`] is for the client;
//! its cause goes to the log only.

use std::time::Duration;

use bay_plugin_host::{FaultKind, PluginError, PluginFault};
use http::StatusCode;
use serde_json::{Value, json};

use crate::driver::DriverError;
use crate::store::{Conflict, StoreError};

/// Whether repeating the same request later may help and does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request cannot succeed.
    Never,
    /// Nothing ran; repeating is harmless.
    Always,
    /// Something may have run: only where the request itself is safe to repeat.
    IfSafe,
}

macro_rules! codes {
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $status:literal, $retry:ident;)*) => {
        /// Every error code of the REST contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $doc] $name,)* }

        impl Code {
            /// Every code, in the order of the contract's table.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// Text in an answer, status, and when a repeat makes sense.
            pub fn row(self) -> (&'static str, u16, Retry) {
                match self { $(Code::$name => ($text, $status, Retry::$retry),)* }
            }

            /// What it means, in a few words.
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$name => $doc.trim().trim_end_matches('.'),)* }
            }
        }
    };
}

codes! {
    /// Body or query does not fit.
    ValidationError = "validation_error", 400, Never;
    /// A path that is empty, absolute, has a NUL or climbs out.
    InvalidPath = "invalid_path", 400, Never;
    /// The profile does not declare it.
    CapabilityNotSupported = "capability_not_supported", 400, Never;
    /// A file was expected.
    IsADirectory = "is_a_directory", 400, Never;
    /// A directory was expected.
    NotADirectory = "not_a_directory", 400, Never;
    /// No key, or an unknown or expired one.
    Unauthorized = "unauthorized", 401, Never;
    /// A known key without the scope, or a page of another origin.
    Forbidden = "forbidden", 403, Never;
    /// A rule said no.
    DeniedByRule = "denied_by_rule", 403, Never;
    /// A file the sandbox's user may not touch.
    PermissionDenied = "permission_denied", 403, Never;
    /// A resource is missing, or not the caller's.
    NotFound = "not_found", 404, Never;
    /// A path is missing in the workspace.
    FileNotFound = "file_not_found", 404, Never;
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, Never;
    /// State conflict.
    Conflict = "conflict", 409, Never;
    /// It exists already.
    AlreadyExists = "already_exists", 409, Never;
    /// The sandbox's TTL has passed.
    SandboxExpired = "sandbox_expired", 409, Never;
    /// A TTL to be extended where there is none.
    SandboxTtlInfinite = "sandbox_ttl_infinite", 409, Never;
    /// The session or kernel that was named is gone.
    StateLost = "state_lost", 409, Never;
    /// Body or file over its bound.
    PayloadTooLarge = "payload_too_large", 413, Never;
    /// Not a content type that this route takes.
    UnsupportedMediaType = "unsupported_media_type", 415, Never;
    /// A range outside the file.
    RangeNotSatisfiable = "range_not_satisfiable", 416, Never;
    /// A garbage collection runs already.
    GcRunning = "gc_running", 423, Always;
    /// Too many requests; waiting helps.
    RateLimited = "rate_limited", 429, Always;
    /// The tenant's bound on what it may have; waiting does not help.
    QuotaExceeded = "quota_exceeded", 429, Never;
    /// The kernel's queue is full.
    Busy = "busy", 429, Always;
    /// A bug in Bay.
    InternalError = "internal_error", 500, Never;
    /// The runtime answered wrongly or went away.
    RuntimeError = "runtime_error", 502, IfSafe;
    /// A plugin trapped, overran a bound or broke its contract.
    PluginError = "plugin_error", 502, IfSafe;
    /// Still starting after the wait budget.
    SessionNotReady = "session_not_ready", 503, Always;
    /// Bay's own bound on work in flight.
    Overloaded = "overloaded", 503, Always;
    /// The store or the driver is down.
    Unavailable = "unavailable", 503, Always;
    /// The profile's network policy cannot be given on this host.
    NetworkUnavailable = "network_unavailable", 503, Never;
    /// Past its bound before the runtime answered.
    Timeout = "timeout", 504, IfSafe;
    /// The locker or the host is full.
    StorageFull = "storage_full", 507, Never;
}

impl Code {
    /// HTTP status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Text in an answer.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }
}

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// Which row of the table.
    pub code: Code,
    /// What happened and what to do, for a person.
    pub message: String,
    /// For a program; an object.
    pub details: Value,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// What handlers and stages return.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error with no details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: json!({}), retry_after: None }
    }

    /// Adds details.
    pub fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// Adds a wait.
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// A resource that is missing, or another tenant's: the two answer alike.
    pub fn not_found(resource: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {resource}"))
            .with(json!({ "resource": resource, "id": id }))
    }

    /// A tenant that has as much of something as it may.
    pub fn quota(quota: &str, limit: u64, used: u64) -> Self {
        let message = format!(
            "the quota of {quota} is used up ({used} of {limit}): waiting does not help, removing something does"
        );
        Self::new(Code::QuotaExceeded, message).with(json!({ "quota": quota, "limit": limit, "used": used }))
    }

    /// One field that does not fit.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::new(Code::ValidationError, format!("`{field}`: {message}"))
            .with(json!({ "errors": [{ "field": field, "message": message }] }))
    }

    /// Several fields that do not fit, all at once.
    pub fn fields(errors: &[(String, String)]) -> Self {
        let list: Vec<_> = errors.iter().map(|(f, m)| json!({ "field": f, "message": m })).collect();
        let words: Vec<_> = errors.iter().take(5).map(|(f, m)| format!("`{f}`: {m}")).collect();
        Self::new(Code::ValidationError, words.join("; ")).with(json!({ "errors": list }))
    }

    /// A bug: the cause goes to the log, the client gets a number to quote.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(Code::InternalError, "something went wrong inside Bay; report it with this request_id")
    }

    /// The body of the answer. `safe`: the request can be repeated without harm.
    pub fn body(&self, request_id: &str, safe: bool) -> Value {
        let (code, _, retry) = self.code.row();
        let retryable = match retry {
            Retry::Never => false,
            Retry::Always => true,
            Retry::IfSafe => safe,
        };
        json!({ "error": {
            "code": code, "message": self.message, "retryable": retryable,
            "request_id": request_id, "details": self.details,
        } })
    }
}

impl From<Conflict> for ApiError {
    fn from(conflict: Conflict) -> Self {
        let error = Self::new(Code::Conflict, conflict.to_string());
        match conflict {
            Conflict::LockerManaged { sandbox_id } => {
                error.with(json!({ "managed_by_sandbox_id": sandbox_id }))
            }
            Conflict::LockerInUse { sandbox_ids } => error.with(json!({ "active_sandbox_ids": sandbox_ids })),
            Conflict::Expired { expires_at } => {
                Self::new(Code::SandboxExpired, "the sandbox's time is up; make a new one")
                    .with(json!({ "expires_at": crate::time::rfc3339(expires_at) }))
            }
            Conflict::TooManyKeys { limit, used } => Self::new(Code::QuotaExceeded, error.message)
                .with(json!({ "quota": "keys", "limit": limit, "used": used })),
            Conflict::NameTaken => Self::new(Code::AlreadyExists, error.message),
            Conflict::FilesFull => Self::new(Code::Overloaded, error.message).after(Duration::from_secs(1)),
            Conflict::TtlInfinite => Self::new(
                Code::SandboxTtlInfinite,
                "the sandbox never expires, so there is nothing to extend",
            ),
            Conflict::PastLatest { latest } => Self::field(
                "extend_by",
                format!("this sandbox may live until {} at most", crate::time::rfc3339(latest)),
            ),
            Conflict::SessionLive
            | Conflict::Stale
            | Conflict::Finished
            | Conflict::IdTaken
            | Conflict::KeyReused => error,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(conflict) => conflict.into(),
            StoreError::NotFound { resource, id } => Self::not_found(resource, &id),
            StoreError::TooLarge { field, max } => Self::field(field, format!("is too large: at most {max}")),
            StoreError::QuotaExceeded { quota, limit, used } => Self::quota(quota, limit, used),
            StoreError::TooSlow => {
                Self::new(Code::Overloaded, "this takes too long to find; ask for less, by narrower filters")
                    .after(Duration::from_secs(1))
            }
            StoreError::Overloaded => {
                Self::new(Code::Overloaded, "too many writes are waiting; try again shortly")
                    .after(Duration::from_secs(1))
            }
            StoreError::Unavailable { reason } => {
                tracing::error!(%reason, "store failed");
                Self::new(Code::Unavailable, "the store cannot be used right now; see Bay's log")
                    .with(json!({ "part": "store" }))
                    .after(Duration::from_secs(5))
            }
            StoreError::Internal { reason } => Self::internal(reason),
        }
    }
}

impl From<DriverError> for ApiError {
    fn from(e: DriverError) -> Self {
        match e {
            DriverError::Network { .. } => Self::new(Code::NetworkUnavailable, e.to_string()),
            DriverError::Unavailable { .. } => {
                // Addresses, paths and the engine's own words are for the operator: the log has them, and `/ready`.
                tracing::warn!(cause = %e, "driver is not available");
                let message = "what runs sandboxes cannot be used right now; see Bay's log or /ready";
                Self::new(Code::Unavailable, message)
                    .with(json!({ "part": "driver" }))
                    .after(Duration::from_secs(5))
            }
            // The image is named by the operator's profile, so its name may be told.
            DriverError::Image { .. } => {
                Self::new(Code::Unavailable, e.to_string()).with(json!({ "part": "image" }))
            }
            DriverError::Missing(_)
            | DriverError::Start { .. }
            | DriverError::Timeout { .. }
            | DriverError::Unsupported { .. }
            | DriverError::Io { .. } => {
                tracing::error!(cause = %e, "driver failed");
                Self::new(Code::Unavailable, "the sandbox could not be run; see Bay's log")
                    .with(json!({ "part": "driver" }))
                    .after(Duration::from_secs(2))
            }
        }
    }
}

impl From<PluginError> for ApiError {
    fn from(e: PluginError) -> Self {
        if matches!(e.reason, PluginFault::Overloaded) {
            return Self::new(Code::Overloaded, "too many calls are in flight; try again shortly")
                .after(Duration::from_secs(1));
        }
        tracing::warn!(plugin = %e.plugin, reason = %e.reason, "plugin failed");
        let (plugin, reason) = (e.plugin.clone(), e.reason.word());
        metrics::counter!("bay_plugin_failures_total", "plugin" => plugin, "reason" => reason).increment(1);
        Self::new(Code::PluginError, format!("plugin {} failed: {}", e.plugin, e.reason.word()))
            .with(json!({ "plugin": e.plugin, "reason": e.reason.word() }))
    }
}

/// What an adapter's fault is to a client.
pub fn fault_code(kind: FaultKind) -> Code {
    match kind {
        FaultKind::Validation => Code::ValidationError,
        FaultKind::InvalidPath => Code::InvalidPath,
        FaultKind::NotFound => Code::NotFound,
        FaultKind::FileNotFound => Code::FileNotFound,
        FaultKind::IsADirectory => Code::IsADirectory,
        FaultKind::NotADirectory => Code::NotADirectory,
        FaultKind::PermissionDenied => Code::PermissionDenied,
        FaultKind::Conflict => Code::Conflict,
        FaultKind::AlreadyExists => Code::AlreadyExists,
        FaultKind::PayloadTooLarge => Code::PayloadTooLarge,
        FaultKind::RangeNotSatisfiable => Code::RangeNotSatisfiable,
        FaultKind::StorageFull => Code::StorageFull,
        FaultKind::Busy => Code::Busy,
        FaultKind::StateLost => Code::StateLost,
        FaultKind::NotSupported => Code::CapabilityNotSupported,
        FaultKind::Timeout => Code::Timeout,
        FaultKind::Runtime => Code::RuntimeError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_text_and_a_real_status() {
        let mut seen = std::collections::HashSet::new();
        for &code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code:?} repeats");
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
        }
    }

    #[test]
    fn an_error_that_may_have_run_something_is_retryable_only_when_safe() {
        let e = ApiError::new(Code::RuntimeError, "gone");
        assert_eq!(e.body("r", false)["error"]["retryable"], false);
        assert_eq!(e.body("r", true)["error"]["retryable"], true);
    }
}
