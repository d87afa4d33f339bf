//! The profiles and tenants of now: a reload puts a whole new set in their place, and whoever holds the old one
//! goes on with it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::auth::Tenant;
use crate::config::Span;

use super::set::ProfileSet;
use super::types::Profile;

/// A [`ProfileSet`] that can be replaced while it is in use.
#[derive(Debug)]
pub struct Profiles(ArcSwap<ProfileSet>);

impl Profiles {
    /// Beginning with this set.
    pub fn new(set: ProfileSet) -> Self {
        Self(ArcSwap::from_pointee(set))
    }

    /// The set of now, for more than one question that have to agree.
    pub fn load(&self) -> Guard<Arc<ProfileSet>> {
        self.0.load()
    }

    /// From now on this set.
    pub fn replace(&self, set: ProfileSet) {
        self.0.store(Arc::new(set));
    }

    /// A profile that this tenant may use.
    pub fn get(&self, tenant: &Tenant, id: &str) -> Option<Arc<Profile>> {
        self.load().get(tenant, id)
    }

    /// What a tenant gets that asks for none.
    pub fn default_for(&self, tenant: &Tenant) -> Option<Arc<Profile>> {
        self.load().default_for(tenant)
    }

    /// Every profile that this tenant may use, by id.
    pub fn list(&self, tenant: &Tenant) -> Vec<Arc<Profile>> {
        self.load().list(tenant)
    }

    /// Longest life of this tenant's sandboxes of a profile: the shorter of the tenant's own bound and the
    /// profile's; null: no bound.
    pub fn max_ttl(&self, tenant: &Tenant, profile: &Profile) -> Option<Span> {
        self.load().max_ttl(tenant, profile)
    }
}
