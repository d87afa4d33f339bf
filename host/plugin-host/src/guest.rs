//! What every call of a guest goes through: a place in the pool, a store, epochs that advance, a bound on time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::Store;

use crate::store::State;
use crate::ticker::Ticker;
use crate::{HostOptions, LoadError, PluginFault};

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
    /// Runs a call of the guest, for at most `most`. After a fault the instance must not be called again.
    pub(crate) async fn run<'a, T, F>(
        &'a mut self,
        most: Duration,
        call: impl FnOnce(&'a mut Store<State>) -> F,
    ) -> Result<wasmtime::Result<T>, PluginFault>
    where
        F: Future<Output = wasmtime::Result<T>> + 'a,
    {
        // A deadline of the store is an epoch; the one set at its making has passed if the guest waited since.
        self.store.set_epoch_deadline(1);
        let _running = self.shared.ticker.running();
        tokio::time::timeout(most, call(&mut self.store)).await.map_err(|_| PluginFault::Deadline)
    }

    /// What a failed call was.
    pub(crate) fn fault(&self, error: &wasmtime::Error) -> PluginFault {
        crate::store::classify(self.store.data(), error)
    }
}
