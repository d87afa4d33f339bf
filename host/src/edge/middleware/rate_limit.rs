//! How often a tenant may ask: after it is known who asks, before any work.
//!
//! A token bucket by tenant. `X-RateLimit-Limit` is what a full one holds, `-Remaining` what is in it now, `-Reset`
//! the seconds until it is full again. A tenant without a limit gets none of the three. Every credential of a tenant,
//! sandbox tokens included, draws from the one bucket.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderName, HeaderValue};
use serde_json::json;

use crate::app::App;
use crate::auth::{OpContext, Tenant};
use crate::config::Rate;
use crate::error::{ApiError, Code};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// Requests between two sweeps of one rate's buckets: with names that anonymous callers make up, this many buckets
/// can come to those that are in use.
const SWEEP_EVERY: u32 = 4096;

type Limiter = RateLimiter<Tenant, DefaultKeyedStateStore<Tenant>, DefaultClock, StateInformationMiddleware>;

/// The buckets of all tenants of one rate.
struct Buckets {
    limiter: Limiter,
    asked: AtomicU32,
}

/// Every tenant's bucket.
#[derive(Default)]
pub struct RateLimits {
    clock: DefaultClock,
    /// By rate, of which there are as many as tenants' files. One set of buckets has one rate.
    by_rate: Mutex<HashMap<Rate, Arc<Buckets>>>,
}

/// How a tenant's bucket was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    /// How long until there is something in it; null: there was, and one is taken.
    wait: Option<Duration>,
    remaining: u32,
    /// Seconds until it is full.
    reset: u64,
}

impl RateLimits {
    /// Forgets the buckets of rates that no tenant has any more. Those of the others stay as they are: a reload gives
    /// nobody a full one.
    pub fn retain(&self, rates: impl Iterator<Item = Rate>) {
        let rates: Vec<Rate> = rates.collect();
        self.by_rate().retain(|rate, _| rates.contains(rate));
    }

    fn by_rate(&self) -> std::sync::MutexGuard<'_, HashMap<Rate, Arc<Buckets>>> {
        // Held for a look or an insertion only.
        self.by_rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, tenant: &Tenant, rate: Rate) -> Found {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let buckets = Arc::clone(self.by_rate().entry(rate).or_insert_with(|| {
            let state = DefaultKeyedStateStore::default();
            let limiter = RateLimiter::new(quota, state, self.clock.clone());
            Arc::new(Buckets { limiter, asked: AtomicU32::new(0) })
        }));
        if buckets.asked.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            buckets.limiter.retain_recent();
        }
        let (wait, remaining) = match buckets.limiter.check_key(tenant) {
            Ok(left) => (None, left.remaining_burst_capacity()),
            Err(empty) => (Some(empty.wait_time_from(self.clock.now())), 0),
        };
        let missing = rate.burst.get().saturating_sub(remaining);
        Found { wait, remaining, reset: u64::from(missing.div_ceil(rate.per_second.get())) }
    }
}

/// Lets a request through while its tenant's bucket has something in it.
pub async fn limit_rate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let context = request.extensions().get::<OpContext>();
    let limited = context.and_then(|context| {
        let rate = app.profiles.load().rate(&context.tenant, app.config.quota)?;
        Some((rate, app.rates.take(&context.tenant, rate)))
    });
    let Some((rate, found)) = limited else { return next.run(request).await };
    let mut response = match found.wait {
        None => next.run(request).await,
        Some(wait) => too_often(wait).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(LIMIT, HeaderValue::from(rate.burst.get()));
    headers.insert(REMAINING, HeaderValue::from(found.remaining));
    headers.insert(RESET, HeaderValue::from(found.reset));
    response
}

fn too_often(wait: Duration) -> ApiError {
    // Whole seconds, up: whoever comes when told finds something.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    ApiError::new(Code::RateLimited, "too many requests of this tenant; wait as long as Retry-After says")
        .with(json!({ "retry_after_ms": u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) }))
        .after(Duration::from_secs(seconds.max(1)))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        let number = |n| NonZeroU32::new(n).unwrap();
        Rate { per_second: number(per_second), burst: number(burst) }
    }

    #[test]
    fn each_tenant_has_a_bucket_that_a_reload_does_not_fill() {
        let limits = RateLimits::default();
        let (acme, other) = (Tenant::new("acme").unwrap(), Tenant::new("other").unwrap());
        let slow = rate(1, 2);
        assert_eq!(limits.take(&acme, slow), Found { wait: None, remaining: 1, reset: 1 });
        assert_eq!(limits.take(&acme, slow), Found { wait: None, remaining: 0, reset: 2 });
        let refused = limits.take(&acme, slow);
        assert!(refused.wait.is_some_and(|wait| wait <= Duration::from_secs(1)), "{refused:?}");
        assert_eq!((refused.remaining, refused.reset), (0, 2));
        assert!(limits.take(&other, slow).wait.is_none());
        limits.retain([slow].into_iter());
        assert!(limits.take(&acme, slow).wait.is_some());
        limits.retain(std::iter::empty());
        assert!(limits.take(&acme, slow).wait.is_none(), "buckets of a rate that nobody has are forgotten");
    }

    #[test]
    fn names_that_come_once_are_swept_out() {
        let limits = RateLimits::default();
        let fast = rate(1_000_000, 1);
        for n in 0..3 * SWEEP_EVERY {
            let tenant = Tenant::new(&format!("t{n}")).unwrap();
            assert!(limits.take(&tenant, fast).wait.is_none());
        }
        let buckets = Arc::clone(&limits.by_rate()[&fast]);
        assert!(buckets.limiter.len() < 2 * SWEEP_EVERY as usize, "{}", buckets.limiter.len());
    }
}
