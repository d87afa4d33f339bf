//! What is counted, for Prometheus. Every label has few values: a route's pattern, never a path; a code, never a
//! message; never a tenant, of which there is no end.
//!
//! | name | labels |
//! |---|---|
//! | `bay_http_requests_total`, `bay_http_request_seconds` (until the head of the answer) | method, route, status |
//! | `bay_http_requests_in_flight`, `bay_connections` | |
//! | `bay_call_stage_seconds`: of `rules`, `route` and `adapt` the time is the plugins' | stage |
//! | `bay_calls_total`: of a capability, through a plugin | capability, outcome |
//! | `bay_calls_in_flight` | |
//! | `bay_plugin_failures_total` | plugin, reason |
//! | `bay_session_start_seconds` | outcome |
//! | `bay_sessions`, `bay_sandboxes_unsettled` | phase |
//! | `bay_store_queue` | kind |
//! | `bay_process_resident_bytes`, `bay_process_open_files`, `bay_info` | |

use std::sync::OnceLock;
use std::time::Instant;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};

use super::recorder::Registry;
use crate::app::App;
use crate::error::ApiResult;

/// The recorder of the process, once installed; without one nothing is counted.
static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// Begins to count; once a process.
pub fn install() -> anyhow::Result<()> {
    let registry = Registry::default();
    metrics::set_global_recorder(registry.clone())
        .map_err(|_| anyhow::anyhow!("metrics were set up before"))?;
    let _first = REGISTRY.set(registry);
    describe();
    Ok(())
}

fn describe() {
    describe_counter!("bay_http_requests_total", "Requests answered");
    describe_histogram!(
        "bay_http_request_seconds",
        Unit::Seconds,
        "From a request's head to the head of its answer"
    );
    describe_gauge!("bay_http_requests_in_flight", "Requests whose answer has not begun");
    describe_gauge!("bay_connections", "Connections, upgraded ones included");
    describe_histogram!(
        "bay_call_stage_seconds",
        Unit::Seconds,
        "Time that a capability call spent in a stage"
    );
    describe_counter!("bay_calls_total", "Capability calls that have ended");
    describe_gauge!("bay_calls_in_flight", "Capability calls that have not ended");
    describe_counter!("bay_plugin_failures_total", "Plugin calls that failed");
    describe_histogram!(
        "bay_session_start_seconds",
        Unit::Seconds,
        "Starts of sessions, cancelled ones included"
    );
    describe_gauge!("bay_sessions", "Sessions by phase");
    describe_gauge!("bay_sandboxes_unsettled", "Sandboxes not known to run or to be gone");
    describe_gauge!("bay_store_queue", "Jobs that wait for the store");
    describe_gauge!("bay_process_resident_bytes", Unit::Bytes, "Resident memory of Bay itself");
    describe_gauge!("bay_process_open_files", "Open file descriptors of Bay itself");
    describe_gauge!("bay_info", "Always 1; the labels say what runs");
}

/// Everything as Prometheus reads it; null where nothing is counted.
pub fn render(app: &App) -> Option<String> {
    let registry = REGISTRY.get()?;
    observe(app);
    Some(registry.render())
}

/// What is looked at when somebody asks, rather than counted.
fn observe(app: &App) {
    for (phase, count) in app.sessions.phases() {
        gauge!("bay_sessions", "phase" => phase.as_str()).set(number(count));
    }
    gauge!("bay_sandboxes_unsettled").set(number(app.sessions.unsettled()));
    gauge!("bay_calls_in_flight").set(number(app.calls_in_flight()));
    let (writes, reads) = app.store.queued();
    gauge!("bay_store_queue", "kind" => "write").set(number(writes));
    gauge!("bay_store_queue", "kind" => "read").set(number(reads));
    gauge!("bay_info", "version" => env!("CARGO_PKG_VERSION"), "driver" => app.driver.name()).set(1.0);
    if let Some(bytes) = resident() {
        gauge!("bay_process_resident_bytes").set(bytes);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge!("bay_process_open_files").set(number(files.count()));
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> Option<f64> {
    let pages: usize = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(number(pages.saturating_mul(rustix::param::page_size())))
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes of one machine are far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}

/// A capability call has ended. Profiles declare every capability that comes this far, so they are few.
pub fn call_ended<T>(capability: &str, outcome: &ApiResult<T>) {
    let outcome = outcome.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
    metrics::counter!("bay_calls_total", "capability" => capability.to_owned(), "outcome" => outcome)
        .increment(1);
}

/// A session's start has ended.
pub fn start_ended<T>(began: Instant, outcome: &ApiResult<T>) {
    let outcome = outcome.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
    metrics::histogram!("bay_session_start_seconds", "outcome" => outcome).record(began.elapsed());
}
