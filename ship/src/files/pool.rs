//! A few threads for file operations, started once: when the container is at its process limit, files still work.
//!
//! An operation that may take long is cut into slices ([`Pool::slices`]), each of which queues anew, so that no
//! directory, however large, keeps the threads from others.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::agent::error::{Code, Failure};

const THREADS: usize = 3;
/// Operations at work or waiting for a thread; a new one beyond that is refused, one under way waits.
const ROOM: usize = 64;
const STACK: usize = 256 << 10;
/// How long a slice should take at most before it lets others go on.
pub(crate) const SLICE: Duration = Duration::from_millis(20);

type Work = Box<dyn FnOnce() + Send>;

/// Runs blocking work elsewhere. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    /// Never holds more than [`ROOM`] operations and what [`Disposed`] hands over.
    work: Sender<Work>,
    room: Arc<Semaphore>,
}

impl Pool {
    /// Starts the threads. They inherit the caller's identity.
    pub(crate) fn start() -> std::io::Result<Self> {
        Self::start_with(THREADS, "ship-files", || Ok(()))
    }

    /// One thread that is the agent for the file system, too, and so can reach what user code cannot.
    pub(crate) fn start_as_agent() -> std::io::Result<Self> {
        Self::start_with(1, "ship-spool", || {
            let id = rustix::process::getuid().as_raw();
            crate::sys::set_file_ids(id, rustix::process::getgid().as_raw())
        })
    }

    fn start_with(threads: usize, name: &str, prepare: fn() -> std::io::Result<()>) -> std::io::Result<Self> {
        let (work, inbox) = channel::<Work>();
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..threads {
            let inbox = Arc::clone(&inbox);
            std::thread::Builder::new().name(name.into()).stack_size(STACK).spawn(move || {
                match prepare() {
                    Ok(()) => work_off(&inbox),
                    // Whoever asks is told that nothing works here.
                    Err(error) => crate::log(&format!("agent: {error}")),
                }
            })?;
        }
        Ok(Self { work, room: Arc::new(Semaphore::new(ROOM)) })
    }

    /// Runs a new `operation` on one of the threads; refused when too many are waiting.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let _room = self
            .room
            .try_acquire()
            .map_err(|_| Failure::new(Code::Busy, "too many file operations are waiting"))?;
        self.at_work(operation).await
    }

    /// The next part of what is under way: waits where [`Pool::run`] would refuse.
    pub(crate) async fn go_on<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let _room = self.room.acquire().await.map_err(|_| lost())?;
        self.at_work(operation).await
    }

    /// Calls `slice` until it answers, each time from the end of the queue. A slice ends itself after [`SLICE`].
    pub(crate) async fn slices<S: Send + 'static, T: Send + 'static>(
        &self,
        mut state: S,
        slice: fn(&mut S) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        loop {
            let (back, answer) = self.go_on(move || slice(&mut state).map(|answer| (state, answer))).await?;
            match answer {
                Some(answer) => return Ok(answer),
                None => state = back,
            }
        }
    }

    async fn at_work<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move || {
            let _ = answer.send(operation());
        });
        self.work.send(work).map_err(|_| lost())?;
        answered.await.unwrap_or_else(|_| Err(lost()))
    }
}

/// A value whose end may block, as closing the last descriptor of a large deleted file does: it ends on one of the
/// pool's threads, wherever it is dropped.
pub(crate) struct Disposed<T: Send + 'static> {
    value: Option<T>,
    pool: Pool,
}

impl<T: Send + 'static> Disposed<T> {
    pub(crate) fn new(value: T, pool: Pool) -> Self {
        Self { value: Some(value), pool }
    }

    /// Takes the value back.
    pub(crate) fn into_inner(mut self) -> Result<T, Failure> {
        self.value.take().ok_or_else(lost)
    }

    /// The value.
    pub(crate) fn get(&self) -> Result<&T, Failure> {
        self.value.as_ref().ok_or_else(lost)
    }

    /// The value; there until it is dropped or taken back, so that this does not fail.
    pub(crate) fn get_mut(&mut self) -> Result<&mut T, Failure> {
        self.value.as_mut().ok_or_else(lost)
    }
}

impl<T: Send + 'static> Drop for Disposed<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            // Only fails when the threads are gone, and with them the agent.
            let _ = self.pool.work.send(Box::new(move || drop(value)));
        }
    }
}

fn lost() -> Failure {
    Failure::new(Code::RuntimeError, "the file operation was lost")
}

fn work_off(inbox: &Mutex<Receiver<Work>>) {
    loop {
        let work = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match work {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}
