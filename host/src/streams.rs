//! Open streams, counted by tenant: each holds a connection and a runtime's attention for as long as its client
//! likes.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::auth::Tenant;
use crate::error::{ApiError, ApiResult};
use crate::places::{Place, Places};
use crate::store::{Quota, Quotas};

/// What is open, by tenant.
pub struct Streams {
    quotas: Arc<ArcSwap<Quotas>>,
    open: Places,
}

/// One open stream, whatever way it ends.
pub type StreamGuard = Place;

impl Streams {
    /// None open, within these quotas as they are at each opening.
    pub fn new(quotas: Arc<ArcSwap<Quotas>>) -> Self {
        Self { quotas, open: Places::default() }
    }

    /// Takes a place: before any work for the stream, and held until it has ended. 429 `quota_exceeded` where the
    /// tenant has as many open as it may.
    pub fn open(&self, tenant: &Tenant) -> ApiResult<StreamGuard> {
        let limit = self.quotas.load().of(tenant).of(Quota::Streams);
        let refused = |used| ApiError::quota(Quota::Streams.as_str(), limit.unwrap_or(used), used);
        self.open.take(tenant, limit).map_err(refused)
    }

    /// How many a tenant has open.
    pub fn used(&self, tenant: &Tenant) -> u64 {
        self.open.used(tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::store::Limits;

    #[test]
    fn the_quota_of_now_bounds_what_is_opened() {
        let limits = Limits::default().with(Quota::Streams, 1);
        let quotas = Arc::new(ArcSwap::from_pointee(Quotas { others: limits, ..Quotas::default() }));
        let streams = Streams::new(Arc::clone(&quotas));
        let acme = Tenant::new("acme").unwrap();
        let _first = streams.open(&acme).unwrap();
        let error = streams.open(&acme).err().unwrap();
        assert_eq!(error.code, Code::QuotaExceeded);
        assert_eq!(error.details, serde_json::json!({ "quota": "streams", "limit": 1, "used": 1 }));
        quotas.store(Arc::new(Quotas::default()));
        let _second = streams.open(&acme).unwrap();
        assert_eq!(streams.used(&acme), 2);
    }
}
