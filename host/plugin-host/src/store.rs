//! What one instance owns: an empty WASI, and bounds.

use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::ticker::TICK;
use crate::{Limits, PluginFault};

/// Most elements of a table; the pool's own bound is the same.
const MAX_TABLE: usize = 20_000;
/// What the host may copy out of a guest beyond an answer's bytes: lengths, names, pairs.
const ANSWER_SLACK: usize = 64 << 10;
/// After each tick of computing, a guest waits this long: a worker thread with nothing else to do can then look
/// at its sockets and timers, which a plain yield would keep it from.
const BREATHER: Duration = Duration::from_millis(1);

/// The data of a store.
pub(crate) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    memory_bytes: usize,
    used: usize,
    memory_hit: bool,
    /// Ticks that the guest may still compute in this call.
    ticks: u32,
    time_hit: bool,
}

impl State {
    /// Starts the clock of one call.
    pub(crate) fn allow(&mut self, computing: Duration) {
        let ticks = computing.as_millis() / TICK.as_millis();
        self.ticks = u32::try_from(ticks).unwrap_or(u32::MAX).max(1);
    }

    /// One more tick has passed while the guest computed.
    fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        match self.ticks.checked_sub(1) {
            Some(left) => self.ticks = left,
            None => {
                self.time_hit = true;
                return Err(wasmtime::Error::msg("out of its computing time"));
            }
        }
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(BREATHER))))
    }
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

/// A store for one operation. Guests yield each tick, and are stopped when they have had theirs.
pub(crate) fn make(engine: &Engine, limits: &Limits) -> Store<State> {
    let state = State {
        wasi: empty_wasi(),
        table: ResourceTable::new(),
        memory_bytes: limits.memory_bytes,
        used: 0,
        memory_hit: false,
        ticks: 1,
        time_hit: false,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| state);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| store.data_mut().tick());
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
    if state.time_hit {
        return PluginFault::Deadline;
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return PluginFault::Overloaded;
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return PluginFault::Trap(trap.to_string());
    }
    let words = format!("{:#}", error.root_cause());
    // wasmtime keeps this error's type to itself; a test holds it to these words.
    if words.contains("fuel allocated for hostcalls") {
        PluginFault::Output
    } else {
        PluginFault::Trap(words)
    }
}
