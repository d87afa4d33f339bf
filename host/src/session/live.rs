//! What a session's task shows to everyone else.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use bay_ship_api::http::Meta;

use super::state::Phase;
use crate::driver::ContainerRef;
use crate::error::ApiError;
use crate::runtime::RuntimeClient;
use crate::store::SessionKey;
use crate::time::now_ms;

/// A session as its task last published it.
#[derive(Debug, Clone)]
pub struct View {
    /// Where it is.
    pub phase: Phase,
    /// Its containers, while ready.
    pub live: Option<Arc<Live>>,
    /// Why the last start failed or the session was lost.
    pub failure: Option<ApiError>,
    /// The last probe of the first container.
    pub checked: Option<Checked>,
}

impl View {
    /// Nothing runs and nothing is known.
    pub fn idle() -> Self {
        Self { phase: Phase::Idle, live: None, failure: None, checked: None }
    }
}

/// What a probe found.
#[derive(Debug, Clone, Copy)]
pub struct Checked {
    /// Whether `/health` said so.
    pub healthy: bool,
    /// When, Unix milliseconds.
    pub at: i64,
}

/// A ready session.
#[derive(Debug)]
pub struct Live {
    /// Session and generation.
    pub key: SessionKey,
    /// The number clients see.
    pub seq: u64,
    /// Its containers, in the profile's order; never empty.
    pub containers: Vec<LiveContainer>,
}

impl Live {
    /// How the driver finds its containers.
    pub fn references(&self) -> Vec<ContainerRef> {
        self.containers.iter().map(|c| c.reference.clone()).collect()
    }
}

/// One running container.
#[derive(Debug)]
pub struct LiveContainer {
    /// Name in the profile.
    pub name: String,
    /// Adapter that the profile declares for it.
    pub adapter: String,
    /// Capabilities that the profile declares for it.
    pub capabilities: Vec<String>,
    /// Capabilities it is the first choice for.
    pub primary_for: Vec<String>,
    /// For the driver.
    pub reference: ContainerRef,
    /// The way to its runtime.
    pub client: Arc<RuntimeClient>,
    /// What the runtime said of itself when the session began.
    pub meta: Meta,
}

/// Calls in flight and when the last one ended; decides about idleness.
#[derive(Debug)]
pub(super) struct Activity {
    in_flight: AtomicUsize,
    last_used: AtomicI64,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { in_flight: AtomicUsize::new(0), last_used: AtomicI64::new(now_ms()) }
    }

    pub(super) fn touch(&self) {
        self.last_used.store(now_ms(), Ordering::Relaxed);
    }

    /// Whether a call is in flight.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// When the session was last used; now, while a call is in flight.
    pub(super) fn last_used(&self) -> i64 {
        if self.is_in_use() { now_ms() } else { self.last_used.load(Ordering::Relaxed) }
    }
}

/// A ready session that cannot be stopped for idleness while this is held.
#[derive(Debug)]
pub struct Lease {
    /// The session.
    pub live: Arc<Live>,
    activity: Arc<Activity>,
}

impl Lease {
    pub(super) fn new(live: Arc<Live>, activity: Arc<Activity>) -> Self {
        activity.in_flight.fetch_add(1, Ordering::AcqRel);
        activity.touch();
        Self { live, activity }
    }

    /// Another on the same session.
    pub(crate) fn again(&self) -> Self {
        Self::new(Arc::clone(&self.live), Arc::clone(&self.activity))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.activity.touch();
        self.activity.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
