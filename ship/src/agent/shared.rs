//! Something that threads of the pool work on in turn. It is neither touched nor dropped anywhere else, since both
//! may block.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::error::{Code, Failure};
use crate::files::pool::Pool;

/// Until a full pool is asked again.
const ROOM: Duration = Duration::from_millis(20);

/// The thing, and where it is worked on.
pub(super) struct Shared<S> {
    pool: Pool,
    state: Arc<Mutex<Option<S>>>,
}

impl<S: Send + 'static> Shared<S> {
    pub(super) fn new(pool: &Pool, state: S) -> Self {
        Self { pool: pool.clone(), state: Arc::new(Mutex::new(Some(state))) }
    }

    /// Runs one piece of work, once the pool has room for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> Result<T, Failure> + Clone + Send + 'static,
    ) -> Result<T, Failure> {
        loop {
            let (state, work) = (Arc::clone(&self.state), work.clone());
            let ran = self.pool.run(move || {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                // The inner result is the work's own: only the pool's refusals are tried again.
                Ok(state.as_mut().map(work))
            });
            match ran.await {
                Ok(Some(done)) => return done,
                Ok(None) => return Err(Failure::new(Code::RuntimeError, "the work was lost")),
                Err(failure) if failure.code == Code::Busy => sleep(ROOM).await,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Puts another in its place, made on the pool; the old one is dropped there.
    pub(super) async fn replace(
        &self,
        make: impl FnOnce() -> Result<S, Failure> + Clone + Send + 'static,
    ) -> Result<(), Failure> {
        self.run(move |state| {
            *state = make()?;
            Ok(())
        })
        .await
    }

    /// Drops it.
    pub(super) async fn end(self) {
        loop {
            let state = Arc::clone(&self.state);
            let ran = self.pool.run(move || {
                drop(state.lock().unwrap_or_else(PoisonError::into_inner).take());
                Ok(())
            });
            match ran.await {
                Err(failure) if failure.code == Code::Busy => sleep(ROOM).await,
                _ => return,
            }
        }
    }
}
