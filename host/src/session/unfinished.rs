//! What is left to be done once the driver answers again, kept where every part of `session` finds it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use crate::error::{ApiError, Code};

/// Most calls to the driver that go on although their start was cancelled: a client that makes and deletes
/// sandboxes while an image is being fetched must not pile up more.
const MAX_LATE: usize = 64;
/// Longest that such a call is left running: more than fetching an image may take by default.
const LATE: Duration = Duration::from_secs(3600);

/// Of one Bay.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// Sandboxes whose live session has no task and is not known to run or to be gone, with whose turn it is to
    /// find out. Nothing is started in one until then.
    unsettled: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Sessions whose start was cancelled during a call to the driver that has not come to its end.
    late: Mutex<HashSet<String>>,
    /// Containers that the log told of: each once, while it is there.
    reported: Mutex<HashSet<String>>,
    places: Arc<Semaphore>,
    wake: Notify,
    passed: AtomicBool,
}

impl Unfinished {
    pub(super) fn new() -> Self {
        Self {
            unsettled: Mutex::new(HashMap::new()),
            late: Mutex::new(HashSet::new()),
            reported: Mutex::new(HashSet::new()),
            places: Arc::new(Semaphore::new(MAX_LATE)),
            wake: Notify::new(),
            passed: AtomicBool::new(false),
        }
    }

    /// Notes that nobody knows how the session of this sandbox is.
    pub(super) fn unsettle(&self, sandbox_id: &str) {
        self.unsettled().entry(sandbox_id.to_owned()).or_default();
    }

    /// The session of this sandbox has a task again, or is over.
    pub(super) fn settled(&self, sandbox_id: &str) {
        self.unsettled().remove(sandbox_id);
    }

    /// The turn to settle it; none where there is nothing to settle.
    pub(super) fn turn(&self, sandbox_id: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.unsettled().get(sandbox_id).map(Arc::clone)
    }

    pub(super) fn is_unsettled(&self, sandbox_id: &str) -> bool {
        self.unsettled().contains_key(sandbox_id)
    }

    /// Sandboxes that are not settled.
    pub(super) fn all_unsettled(&self) -> Vec<String> {
        self.unsettled().keys().cloned().collect()
    }

    /// Whether the driver is still at something for this session.
    pub(super) fn is_late(&self, session_id: &str) -> bool {
        self.late().contains(session_id)
    }

    /// Which of these containers were not there when this was asked last.
    pub(super) fn newly_reported(&self, found: HashSet<String>) -> Vec<String> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let new = found.difference(&reported).cloned().collect();
        *reported = found;
        new
    }

    /// Leaves a call to the driver running, and says so until it has ended. Given back where too many run already: the
    /// caller waits for its own then.
    pub(super) fn leave<T: Send + 'static>(
        self: &Arc<Self>,
        session_id: &str,
        call: Call<T>,
    ) -> Result<(), Call<T>> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return Err(call) };
        self.late().insert(session_id.to_owned());
        let (this, id) = (Arc::clone(self), session_id.to_owned());
        tokio::spawn(async move {
            // What came of it does not matter: whatever it made is found by its name and removed.
            let _came = tokio::time::timeout(LATE, call).await;
            this.late().remove(&id);
            drop(place);
            this.wake();
        });
        Ok(())
    }

    /// Something was left undone: have it looked at soon.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What an earlier Bay left has been gone through once.
    pub(super) fn pass_over(&self) {
        self.passed.store(true, Ordering::Release);
    }

    pub(super) fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Acquire)
    }

    fn unsettled(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn late(&self) -> MutexGuard<'_, HashSet<String>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call to the driver that goes on by itself; ended when this is dropped, so that none outlives its owner by
/// mistake.
pub(super) struct Call<T> {
    task: tokio::task::JoinHandle<T>,
    abort: AbortHandle,
}

impl<T: Send + 'static> Call<T> {
    pub(super) fn spawn(call: impl Future<Output = T> + Send + 'static) -> Self {
        let task = tokio::spawn(call);
        Self { abort: task.abort_handle(), task }
    }
}

impl<T> Future for Call<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.task).poll(cx)
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// What a call on a sandbox gets whose session is not settled.
pub(super) fn not_settled() -> ApiError {
    ApiError::new(
        Code::Unavailable,
        "how this sandbox is cannot be told until what runs containers answers; try again shortly",
    )
    .with(serde_json::json!({ "part": "driver" }))
    .after(Duration::from_secs(2))
}
