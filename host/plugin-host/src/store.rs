//! What one instance owns: an empty WASI, and bounds.

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::{Limits, PluginFault};

/// Most elements of a table; the pool's own bound is the same.
const MAX_TABLE: usize = 20_000;
/// What the host may copy out of a guest beyond an answer's bytes: lengths, names, pairs.
const ANSWER_SLACK: usize = 64 << 10;
/// After each tick of computing, a guest waits this long: a worker thread with nothing else to do can then look
/// at its sockets and timers, which a plain yield would keep it from.
const BREATHER: std::time::Duration = std::time::Duration::from_millis(1);

/// The data of a store.
pub(crate) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    memory_bytes: usize,
    used: usize,
    memory_hit: bool,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // All memories of the instance together.
        let grown = self.used.saturating_add(desired.saturating_sub(current));
        if grown > self.memory_bytes {
            self.memory_hit = true;
            return Err(wasmtime::Error::msg("out of its memory bound"));
        }
        self.used = grown;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE)
    }
}

/// A store for one operation. Guests yield each tick; the caller bounds the wall time of each call.
pub(crate) fn make(engine: &Engine, limits: &Limits) -> Store<State> {
    let state = State {
        wasi: empty_wasi(),
        table: ResourceTable::new(),
        memory_bytes: limits.memory_bytes,
        used: 0,
        memory_hit: false,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| state);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| {
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(BREATHER))))
    });
    store.set_hostcall_fuel(limits.max_answer_bytes.saturating_add(ANSWER_SLACK));
    store
}

/// No arguments, environment, directories, sockets or name service; output goes nowhere.
fn empty_wasi() -> WasiCtx {
    WasiCtxBuilder::new().allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).build()
}

/// What a failed call of a guest was.
pub(crate) fn classify(state: &State, error: &wasmtime::Error) -> PluginFault {
    if state.memory_hit {
        return PluginFault::Memory;
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return PluginFault::Overloaded;
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return PluginFault::Trap(trap.to_string());
    }
    let words = format!("{:#}", error.root_cause());
    // wasmtime keeps this error's type to itself; a test holds it to these words.
    if words.contains("fuel allocated for hostcalls") { PluginFault::Output } else { PluginFault::Trap(words) }
}
