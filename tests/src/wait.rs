//! Waiting for the thing itself, with a deadline.

use std::time::{Duration, Instant};

/// How long one probe of a condition rests before the next.
const INTERVAL: Duration = Duration::from_millis(10);

/// Probes until there is an answer; fails the test when `limit` passes without one.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "gave up after {limit:?} waiting for this: {what}");
        std::thread::park_timeout(INTERVAL);
    }
}

/// Whether a condition comes true before `limit` passes.
pub fn soon(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(INTERVAL);
    }
}
