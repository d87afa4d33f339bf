//! The engine: how components are compiled and how much of the machine they share.
//!
//! Settings follow `wasm.md`, where they were measured. What matters here: instances come from a pool whose slots
//! keep their first pages resident; guests are interrupted by epochs, which a thread of its own advances; the
//! component model's own concurrency is off, since plugins never wait.

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::{HostOptions, LoadError};

/// Core instances of one component: an interpreter's component has up to 14.
const CORE_INSTANCES: u32 = 16;
/// Linear memories of one component.
const MEMORIES: u32 = 2;
/// Tables of one component.
const TABLES: u32 = 10;
/// Elements of one table; an interpreter needs 8,000.
const TABLE_ELEMENTS: usize = 20_000;
/// Fiber stack of one operation, half of it the guest's; touched only as far as it is used. Interpreters recurse.
const STACK_BYTES: usize = 1 << 20;
/// What of a slot stays resident after use: a fresh instance of a small component then faults in nothing.
const KEEP_MEMORY: usize = 192 << 10;
/// The same of a table.
const KEEP_TABLE: usize = 16 << 10;
/// Slots that stay warm; each costs at most what it keeps.
const WARM_SLOTS: u32 = 32;

/// Makes the engine. Each pooled memory reserves 4 GiB of address space, so that generated code needs no bounds
/// checks: 5 TiB for 1,024 operations, of which only what is touched costs anything. Where the machine refuses that
/// much (RLIMIT_AS), every instance maps its own memory: slower to start, and it works.
pub(crate) fn make(options: &HostOptions) -> Result<Engine, LoadError> {
    let mut roomy = common();
    roomy.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options)));
    match Engine::new(&roomy) {
        Ok(engine) => Ok(engine),
        Err(why) => {
            tracing::warn!(cause = format!("{why:#}"), "no address space for a pool of plugin instances");
            modest(options).map_err(|e| LoadError::Engine(format!("{e:#}")))
        }
    }
}

/// An engine without a pool.
fn modest(options: &HostOptions) -> wasmtime::Result<Engine> {
    let mut config = common();
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .memory_reservation(options.limits.memory_bytes as u64)
        .memory_reservation_for_growth(0)
        .memory_guard_size(64 << 10);
    Engine::new(&config)
}

fn common() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .async_stack_size(STACK_BYTES)
        .max_wasm_stack(STACK_BYTES / 2)
        // Names of functions are enough for a log line.
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

fn pool(options: &HostOptions) -> PoolingAllocationConfig {
    // `HostOptions::check` keeps it far below.
    let operations = u32::try_from(options.max_operations).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(operations)
        .total_core_instances(operations.saturating_mul(CORE_INSTANCES))
        // Nearly every component has one memory and two tables; the few that have more share the spare ones.
        .total_memories(operations.saturating_add(operations / 4).saturating_add(MEMORIES))
        .total_tables(operations.saturating_mul(3).saturating_add(TABLES))
        .total_stacks(operations)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(options.limits.memory_bytes)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(KEEP_MEMORY)
        .table_keep_resident(KEEP_TABLE);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes);
    }
    pool
}

/// Changes whenever compiled code of one engine must not be run by another.
pub(crate) fn compatibility(engine: &Engine) -> u64 {
    // Its keys are constant, which a hash that names files needs.
    #[expect(deprecated, reason = "the one hasher of std whose result is the same in every process")]
    let mut hasher = std::hash::SipHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::component::Component;

    #[test]
    fn without_address_space_for_a_pool_components_still_compile() {
        let options = HostOptions::new("/nonexistent");
        let engine = modest(&options).unwrap();
        assert!(Component::new(&engine, bay_embedded::RULES_DEFAULT).is_ok());
        assert_ne!(compatibility(&engine), compatibility(&make(&options).unwrap()), "its code is another");
    }
}
