//! Places that a tenant takes, counted in memory: for what ends with Bay.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::auth::Tenant;

/// What is taken, by tenant. One with nothing taken has no entry, so that the map grows with what goes on and not with
/// names.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<HashMap<Tenant, u64>>>);

/// One place. Dropping it gives it back, however what took it ended.
#[must_use = "a place is taken for as long as this lives"]
pub struct Place {
    tenant: Tenant,
    places: Places,
}

impl Places {
    /// Takes one, unless the tenant has `limit` already: then how many it has.
    pub fn take(&self, tenant: &Tenant, limit: Option<u64>) -> Result<Place, u64> {
        let mut taken = self.lock();
        let used = taken.get(tenant).copied().unwrap_or(0);
        if limit.is_some_and(|limit| used >= limit) {
            return Err(used);
        }
        taken.insert(tenant.clone(), used + 1);
        Ok(Place { tenant: tenant.clone(), places: self.clone() })
    }

    /// How many a tenant has.
    pub fn used(&self, tenant: &Tenant) -> u64 {
        self.lock().get(tenant).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Tenant, u64>> {
        // Held for a look and a step only; no panic leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match taken.get_mut(&self.tenant) {
            Some(used) if *used > 1 => *used -= 1,
            Some(_) | None => {
                taken.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_and_others_have_their_own() {
        let places = Places::default();
        let (acme, other) = (Tenant::new("acme").unwrap(), Tenant::new("other").unwrap());
        let first = places.take(&acme, Some(2)).unwrap();
        let second = places.take(&acme, Some(2)).unwrap();
        assert_eq!(places.take(&acme, Some(2)).err(), Some(2));
        let others = places.take(&other, Some(1)).unwrap();
        drop(first);
        let third = places.take(&acme, Some(2)).unwrap();
        let fourth = places.take(&acme, None).unwrap();
        assert_eq!(places.used(&acme), 3);
        drop((second, third, fourth));
        assert_eq!(places.used(&acme), 0);
        assert_eq!(places.lock().len(), 1, "only what is taken has an entry");
        drop(others);
    }
}
