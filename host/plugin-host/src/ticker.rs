//! Advances the engine's epoch, on a thread that no guest can hold up.
//!
//! Ticking forever would wake an idle machine 200 times a second, so the thread sleeps while nothing runs. It lets
//! a second pass before it does: under load nobody pays for waking it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use wasmtime::{Engine, EngineWeak};

use crate::LoadError;

/// How long a guest computes before it lets others run.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// How long after the last operation the thread goes to sleep.
const LINGER: Duration = Duration::from_secs(1);
/// Asleep, it looks now and then whether the engine is gone.
const ASLEEP: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Shared {
    running: AtomicUsize,
    asleep: AtomicBool,
}

/// Counts what runs, and wakes the thread when something does.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

/// While one of these lives, epochs advance.
#[derive(Debug)]
pub(crate) struct Running {
    shared: Arc<Shared>,
}

impl Ticker {
    /// Starts the thread; it ends with the engine.
    pub(crate) fn start(engine: &Engine) -> Result<Self, LoadError> {
        let shared = Arc::new(Shared::default());
        let (engine, weak) = (engine.weak(), Arc::downgrade(&shared));
        let handle = std::thread::Builder::new()
            .name("plugin-ticker".into())
            .spawn(move || tick(&engine, &weak))
            .map_err(|e| LoadError::Engine(format!("no thread for the ticker: {e}")))?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Says that a guest is about to run.
    pub(crate) fn running(&self) -> Running {
        // Both sides order the counter before the flag: either the thread sees the count, or we see its sleep.
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running { shared: self.shared.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(engine: &EngineWeak, shared: &Weak<Shared>) {
    let mut busy_until = Instant::now() + LINGER;
    while let (Some(engine), Some(shared)) = (engine.upgrade(), shared.upgrade()) {
        engine.increment_epoch();
        let now = Instant::now();
        if shared.running.load(Ordering::SeqCst) > 0 {
            busy_until = now + LINGER;
        }
        let mut pause = TICK;
        if now >= busy_until {
            shared.asleep.store(true, Ordering::SeqCst);
            if shared.running.load(Ordering::SeqCst) == 0 {
                pause = ASLEEP;
            }
        }
        // Neither is kept alive while the thread waits.
        drop(engine);
        let asleep = shared;
        std::thread::park_timeout(pause);
        asleep.asleep.store(false, Ordering::SeqCst);
    }
}
