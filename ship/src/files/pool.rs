//! A few threads for file operations, started once: when the container is at its process limit, files still work.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::agent::error::{Code, Failure};

const THREADS: usize = 3;
/// Operations waiting for a thread; more are refused.
const WAITING: usize = 64;
const STACK: usize = 256 << 10;

type Work = Box<dyn FnOnce() + Send>;

/// Runs blocking work elsewhere. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    work: SyncSender<Work>,
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
        let (work, inbox) = sync_channel::<Work>(WAITING);
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
        Ok(Self { work })
    }

    /// Runs `operation` on one of the threads.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move || {
            let _ = answer.send(operation());
        });
        match self.work.try_send(work) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(Failure::new(Code::Busy, "too many file operations are waiting"));
            }
            Err(TrySendError::Disconnected(_)) => return Err(lost()),
        }
        answered.await.unwrap_or_else(|_| Err(lost()))
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
