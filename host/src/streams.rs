//! Open streams, counted by tenant: each holds a connection and a runtime's attention for as long as its client
//! likes. They end with Bay, so they are counted in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::auth::Tenant;
use crate::error::{ApiError, ApiResult};
use crate::store::{Quota, Quotas};

/// What is open, by tenant. One with nothing open has no entry, so that the map grows with streams and not with
/// names.
pub struct Streams {
    quotas: Arc<ArcSwap<Quotas>>,
    open: Arc<Mutex<HashMap<Tenant, u64>>>,
}

/// One open stream. Dropping it gives its place back, however the stream ended.
#[must_use = "a stream is open for as long as this lives"]
pub struct StreamGuard {
    tenant: Tenant,
    open: Arc<Mutex<HashMap<Tenant, u64>>>,
}

impl Streams {
    /// None open, within these quotas as they are at each opening.
    pub fn new(quotas: Arc<ArcSwap<Quotas>>) -> Self {
        Self { quotas, open: Arc::default() }
    }

    /// Takes a place: before any work for the stream, and held until it has ended. 429 `quota_exceeded` where the
    /// tenant has as many open as it may.
    pub fn open(&self, tenant: &Tenant) -> ApiResult<StreamGuard> {
        let limit = self.quotas.load().of(tenant).of(Quota::Streams);
        let mut open = lock(&self.open);
        let used = open.get(tenant).copied().unwrap_or(0);
        if let Some(limit) = limit.filter(|limit| used >= *limit) {
            return Err(ApiError::quota(Quota::Streams.as_str(), limit, used));
        }
        open.insert(tenant.clone(), used + 1);
        Ok(StreamGuard { tenant: tenant.clone(), open: Arc::clone(&self.open) })
    }

    /// How many a tenant has open.
    pub fn used(&self, tenant: &Tenant) -> u64 {
        lock(&self.open).get(tenant).copied().unwrap_or(0)
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        match open.get_mut(&self.tenant) {
            Some(used) if *used > 1 => *used -= 1,
            Some(_) | None => {
                open.remove(&self.tenant);
            }
        }
    }
}

fn lock(open: &Mutex<HashMap<Tenant, u64>>) -> MutexGuard<'_, HashMap<Tenant, u64>> {
    // Held for a look and a step only; no panic leaves it half changed.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::store::Limits;

    #[test]
    fn a_stream_takes_a_place_until_it_is_dropped_and_others_have_their_own() {
        let limits = Limits::default().with(Quota::Streams, 2);
        let quotas = Arc::new(ArcSwap::from_pointee(Quotas { others: limits, ..Quotas::default() }));
        let streams = Streams::new(Arc::clone(&quotas));
        let (acme, other) = (Tenant::new("acme").unwrap(), Tenant::new("other").unwrap());
        let first = streams.open(&acme).unwrap();
        let second = streams.open(&acme).unwrap();
        let error = streams.open(&acme).err().unwrap();
        assert_eq!(error.code, Code::QuotaExceeded);
        assert_eq!(error.details, serde_json::json!({ "quota": "streams", "limit": 2, "used": 2 }));
        let _others = streams.open(&other).unwrap();
        drop(first);
        let third = streams.open(&acme).unwrap();
        quotas.store(Arc::new(Quotas::default()));
        let _fourth = streams.open(&acme).unwrap();
        assert_eq!(streams.used(&acme), 3);
        drop((second, third, _fourth));
        assert_eq!(streams.used(&acme), 0);
        assert_eq!(lock(&streams.open).len(), 1, "only what is open has an entry");
    }
}
