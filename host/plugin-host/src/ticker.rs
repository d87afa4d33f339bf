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
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
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
    let mut slept = false;
    loop {
        // Neither is kept alive while the thread waits.
        let pause = {
            let (Some(engine), Some(shared)) = (engine.upgrade(), shared.upgrade()) else { return };
            engine.increment_epoch();
            let now = Instant::now();
            // Whoever wakes this thread lowers the flag; what it ran may have ended since, but more is likely.
            let woken = slept && !shared.asleep.load(Ordering::SeqCst);
            if woken || shared.running.load(Ordering::SeqCst) > 0 {
                busy_until = now + LINGER;
            }
            slept = now >= busy_until;
            shared.asleep.store(slept, Ordering::SeqCst);
            // Counted before the flag was up: nobody will wake this thread for it.
            if slept && shared.running.load(Ordering::SeqCst) == 0 { ASLEEP } else { TICK }
        };
        std::thread::park_timeout(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}: not in time");
            std::thread::yield_now();
        }
    }

    #[test]
    fn it_sleeps_when_nothing_runs_and_wakes_for_the_next_call() {
        let engine = Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        let ticker = Ticker::start(&engine).unwrap();
        let asleep = || ticker.shared.asleep.load(Ordering::SeqCst);
        for _ in 0..2 {
            until("goes to sleep", asleep);
            let running = ticker.running();
            assert!(!asleep());
            drop(running);
        }
        assert_eq!(ticker.shared.running.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn it_ends_with_its_engine() {
        let engine = Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        let shared = Arc::downgrade(&ticker.shared);
        drop(engine);
        let thread = ticker.thread.clone();
        drop(ticker);
        thread.unpark();
        until("ends", || shared.upgrade().is_none());
    }
}
