//! Bounds on what a plugin may use and say. All are mandatory; none can be zero or unlimited.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::LoadError;

/// Most retries a router may ask for: each one multiplies load on a runtime that is already failing.
pub const MAX_RETRIES: u32 = 3;

/// How the host of plugins is set up.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Directory of compiled components; made with mode 0700, and not used unless it is ours alone.
    pub cache_dir: PathBuf,
    /// Bounds of each operation.
    pub limits: Limits,
    /// Most operations in flight: one more is answered [`crate::PluginFault::Overloaded`].
    pub max_operations: usize,
}

impl HostOptions {
    /// Default bounds, 1,024 operations.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self { cache_dir: cache_dir.into(), limits: Limits::default(), max_operations: 1024 }
    }
}

/// Bounds of one operation. Each comment says what the bound stops.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Linear memory of one instance: stops a guest that allocates without end. It must hold a largest file in
    /// transit: the runtime's body and the answer made of it.
    pub memory_bytes: usize,
    /// Computing time of a rules or router call (and at most four times as much on the clock): they are pure, so
    /// only a spinning guest needs longer.
    pub pure_timeout: Duration,
    /// The same for an adapter between two actions: an operation's deadline can be an hour, and a spinning guest
    /// must not burn a core until then.
    pub step_timeout: Duration,
    /// Bytes of one answer of a guest (JSON, plan with bodies), and what the host copies out of it.
    pub max_answer_bytes: usize,
    /// Bytes of the body of one response that is given to a guest.
    pub max_response_bytes: usize,
    /// Actions of one operation: stops a guest that never replies.
    pub max_steps: u32,
    /// Requests in one action: stops one call from becoming a flood.
    pub max_requests_per_step: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 128 << 20,
            pure_timeout: Duration::from_secs(1),
            step_timeout: Duration::from_secs(2),
            max_answer_bytes: 24 << 20,
            max_response_bytes: 24 << 20,
            max_steps: 64,
            max_requests_per_step: 16,
        }
    }
}

fn within<T: PartialOrd + std::fmt::Debug + Copy>(
    name: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), LoadError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (from, to) = range.into_inner();
    Err(LoadError::Options(format!("`{name}` is {value:?}; it must be between {from:?} and {to:?}")))
}

impl HostOptions {
    /// Refuses zeros, and values so large that they bound nothing.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let l = &self.limits;
        within("max_operations", self.max_operations, 1..=8192)?;
        within("memory_bytes", l.memory_bytes, 1 << 20..=1 << 30)?;
        within("pure_timeout", l.pure_timeout, Duration::from_millis(10)..=Duration::from_secs(60))?;
        within("step_timeout", l.step_timeout, Duration::from_millis(10)..=Duration::from_secs(60))?;
        within("max_answer_bytes", l.max_answer_bytes, 1 << 10..=256 << 20)?;
        within("max_response_bytes", l.max_response_bytes, 1 << 10..=256 << 20)?;
        within("max_steps", l.max_steps, 1..=4096)?;
        within("max_requests_per_step", l.max_requests_per_step, 1..=256)
    }
}
