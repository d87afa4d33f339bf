//! What every call of a guest goes through: a place in the pool, a store, epochs that advance, a bound on time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wasmtime::Store;

use crate::store::State;
use crate::ticker::Ticker;
use crate::{HostOptions, LoadError, PluginFault};

/// How much longer than it may compute a call may take on the clock. Computing is counted in ticks, so that a busy
/// machine fails nobody's plugin; the clock is for a guest that waits inside the host, where no tick reaches it.
const PATIENCE: u32 = 4;

/// The engine and what all plugins share of it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) options: HostOptions,
    ticker: Ticker,
    places: Arc<Semaphore>,
}

/// A place among the operations in flight, with the store of the one that has it.
pub(crate) struct Place {
    shared: Arc<Shared>,
    pub(crate) store: Store<State>,
    /// Declared last: given back when the store is gone.
    _permit: OwnedSemaphorePermit,
}

impl Shared {
    pub(crate) fn new(options: HostOptions) -> Result<Self, LoadError> {
        let engine = crate::engine::make(&options)?;
        let ticker = Ticker::start(&engine)?;
        let places = Arc::new(Semaphore::new(options.max_operations));
        Ok(Self { engine, options, ticker, places })
    }

    /// A place for one operation, or [`PluginFault::Overloaded`]: callers are not queued, they are told.
    pub(crate) fn place(self: &Arc<Self>) -> Result<Place, PluginFault> {
        let permit = self.places.clone().try_acquire_owned().map_err(|_| PluginFault::Overloaded)?;
        let store = crate::store::make(&self.engine, &self.options.limits);
        Ok(Place { shared: self.clone(), store, _permit: permit })
    }
}

impl Place {
    /// Runs a call of the guest that may compute for `computing` and ends by `deadline`. After a fault the instance
    /// must not be called again.
    pub(crate) async fn run<'a, T, F>(
        &'a mut self,
        computing: Duration,
        deadline: Option<Instant>,
        call: impl FnOnce(&'a mut Store<State>) -> F,
    ) -> Result<wasmtime::Result<T>, PluginFault>
    where
        F: Future<Output = wasmtime::Result<T>> + 'a,
    {
        // A deadline of the store is an epoch; the one set at its making has passed if the guest waited since.
        self.store.set_epoch_deadline(1);
        self.store.data_mut().allow(computing);
        let _running = self.shared.ticker.running();
        let patience = Instant::now() + computing.saturating_mul(PATIENCE);
        let until = deadline.map_or(patience, |deadline| deadline.min(patience));
        tokio::time::timeout_at(until, call(&mut self.store)).await.map_err(|_| PluginFault::Deadline)
    }

    /// What a failed call was.
    pub(crate) fn fault(&self, error: &wasmtime::Error) -> PluginFault {
        crate::store::classify(self.store.data(), error)
    }
}
