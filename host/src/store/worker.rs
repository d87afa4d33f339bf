//! The threads that touch SQLite.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::Store;
use super::error::{OpenError, StoreError};
use super::lock::DataDirLock;
use super::queue::{FairQueue, Lane, Refused};

/// Reader threads, for lists and for what waits: there are few cores to spare.
pub(super) const READERS: usize = 2;
/// Connections for reading one row without changing threads.
pub(super) const POINT_READERS: usize = 4;
/// How long a question of a tenant's may take ...
const READ_LIMIT: Duration = Duration::from_secs(5);
/// ... and one of Bay's own, at start-up over everything there is.
const SYSTEM_READ_LIMIT: Duration = Duration::from_secs(60);
/// Steps of SQLite between two looks at the clock: well under a millisecond.
const READ_STEPS: i32 = 10_000;
/// Most writes that share one transaction and its fsync. Bounds how long the first of them waits for the last.
const MAX_BATCH: usize = 64;

/// A read: runs, answers.
type ReadJob = Box<dyn FnOnce(&mut Connection) + Send>;
/// A write: runs within a transaction, and answers when told how that ended.
struct WriteJob {
    outlives: Outlives,
    work: Box<dyn FnOnce(&Connection) -> Answer + Send>,
}

/// What a write outlives from the moment it is answered. One that waits for the disk costs an fsync, which on a
/// common disk is more than all else that Bay does for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlives {
    /// Bay's own end, however sudden: the log is written, and the system has it. A power failure may take the last
    /// of these with it, but never one before them, and never a part of one. For records of what the same power
    /// failure ended anyway.
    Bay,
    /// A power failure, too.
    Power,
}

impl Outlives {
    /// The value of SQLite's `synchronous` for it. In WAL mode `normal` leaves out only the fsync of a commit.
    fn synchronous(self) -> &'static str {
        match self {
            Self::Bay => "normal",
            Self::Power => "full",
        }
    }
}

/// What a write leaves to be done after the commit.
struct Answer {
    /// Its savepoint is to be kept.
    keep: bool,
    /// Sends the caller its result, or why the transaction came to nothing.
    send: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

/// The threads and their queues.
pub(super) struct Workers {
    writes: Arc<FairQueue<WriteJob>>,
    reads: Arc<FairQueue<ReadJob>>,
    point_readers: Mutex<Vec<Connection>>,
    threads: Vec<JoinHandle<()>>,
    /// Released last, when no connection is left.
    _lock: DataDirLock,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Workers {
    pub(super) fn start(
        writer: Connection,
        readers: Vec<Connection>,
        point_readers: Vec<Connection>,
        lock: DataDirLock,
    ) -> Result<Self, OpenError> {
        let (writes, reads) = (Arc::new(FairQueue::new()), Arc::new(FairQueue::new()));
        let mut workers = Self {
            writes: writes.clone(),
            reads: reads.clone(),
            point_readers: Mutex::new(point_readers),
            threads: Vec::new(),
            _lock: lock,
        };
        workers.spawn("bay-store-write", move || write_loop(writer, &writes))?;
        for mut reader in readers {
            let reads = reads.clone();
            workers.spawn("bay-store-read", move || {
                while let Some(job) = reads.pop() {
                    // The job's own answer is dropped with it; its caller sees that. Nothing is half-written.
                    let _ = catch_unwind(AssertUnwindSafe(|| job(&mut reader)));
                }
            })?;
        }
        Ok(workers)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|source| {
            OpenError::Io { what: "cannot start a thread for the database".to_owned(), source }
        })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.writes.close();
        self.reads.close();
        self.point_readers().clear();
        // Readers first: the writer's connection is the last and folds the log into the database.
        for thread in self.threads.drain(..).rev() {
            // The loops catch panics of jobs; there is nobody left to tell of any other.
            let _ = thread.join();
        }
    }
}

fn write_loop(mut db: Connection, queue: &FairQueue<WriteJob>) {
    // As the connection was opened.
    let mut now = Outlives::Power;
    while let Some(first) = queue.pop() {
        let more = std::iter::from_fn(|| queue.try_pop()).take(MAX_BATCH - 1);
        let jobs: Vec<_> = std::iter::once(first).chain(more).collect();
        let wanted = if jobs.iter().any(|job| job.outlives == Outlives::Power) {
            Outlives::Power
        } else {
            Outlives::Bay
        };
        // Where it cannot be changed it stays, and the next batch tries again: never less than was asked for,
        // because nothing is written.
        if wanted != now {
            match db.pragma_update(None, "synchronous", wanted.synchronous()) {
                Ok(()) => now = wanted,
                Err(error) => {
                    tracing::error!(%error, "the store cannot change how it writes");
                    continue;
                }
            }
        }
        let (answers, end) = run_batch(&mut db, jobs);
        for answer in answers {
            (answer.send)(end.clone());
        }
    }
    // The planner's statistics, refreshed where they are stale; losing this costs nothing.
    let _ = db.execute_batch("PRAGMA optimize");
}

/// Runs jobs in one transaction, each in its savepoint; answers are sent by the caller, after the commit.
fn run_batch(db: &mut Connection, jobs: Vec<WriteJob>) -> (Vec<Answer>, Result<(), StoreError>) {
    let mut answers = Vec::new();
    let mut transaction = match db.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        // Dropping a job drops its way to answer, which its caller sees; but the reason is worth telling.
        Err(error) => {
            tracing::error!(%error, "the store cannot begin a transaction");
            return (answers, Err(error.into()));
        }
    };
    for job in jobs {
        let ended = (|| {
            let savepoint = transaction.savepoint()?;
            let answer = catch_unwind(AssertUnwindSafe(|| (job.work)(&savepoint)));
            match answer {
                Ok(answer) if answer.keep => {
                    answers.push(answer);
                    savepoint.commit()
                }
                Ok(answer) => {
                    answers.push(answer);
                    savepoint.finish()
                }
                Err(_) => savepoint.finish(),
            }
        })();
        // A full disk or a damaged file makes SQLite roll the whole transaction back by itself.
        if transaction.is_autocommit() {
            let reason = "SQLite rolled the transaction back".to_owned();
            tracing::error!(?ended, "{reason}");
            return (answers, Err(StoreError::Unavailable { reason }));
        }
        if let Err(error) = ended {
            return (answers, Err(error.into()));
        }
    }
    let end = transaction.commit().map_err(StoreError::from);
    if let Err(error) = &end {
        tracing::error!(%error, "the store cannot commit");
    }
    (answers, end)
}

impl Store {
    /// How many jobs wait: writes, reads.
    pub fn queued(&self) -> (usize, usize) {
        (self.workers.writes.len(), self.workers.reads.len())
    }

    /// Runs a write on the writer thread and waits until it is on disk. Once queued it runs, even when the caller
    /// no longer waits.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        lane: impl Into<Lane>,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_to_outlive(Outlives::Power, lane, work).await
    }

    /// As [`Store::write`], for what may outlive less.
    pub(super) async fn write_to_outlive<T: Send + 'static>(
        &self,
        outlives: Outlives,
        lane: impl Into<Lane>,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move |db: &Connection| {
            let result = work(db);
            let keep = result.is_ok();
            // A refusal stands whether or not others' writes reach the disk.
            let send = move |end: Result<(), StoreError>| {
                let _ = sender.send(result.and_then(|value| end.map(|()| value)));
            };
            Answer { keep, send: Box::new(send) }
        });
        let job = WriteJob { outlives, work };
        self.workers.writes.push(lane.into(), job).map_err(refusal)?;
        receiver.await.map_err(|_| gone())?
    }

    /// Reads a row by its key. Such a read takes some microseconds, a change of threads and back a hundred, so it
    /// runs where the caller is as long as there is a connection to spare; else as [`Store::read`].
    pub(super) async fn read_row<T: Send + 'static>(
        &self,
        lane: impl Into<Lane>,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let spare = self.workers.point_readers().pop();
        let Some(db) = spare else { return self.read(lane, work).await };
        // A panic unwinds into the caller, as it would from any function; the connection goes with it.
        let answer = work(&db);
        self.workers.point_readers().push(db);
        answer
    }

    /// Runs a read on a reader thread. It sees every write that was answered before it was asked.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        lane: impl Into<Lane>,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let lane = lane.into();
        let limit = match &lane {
            Lane::Tenant(_) => READ_LIMIT,
            Lane::System => SYSTEM_READ_LIMIT,
        };
        let job: ReadJob = Box::new(move |db: &mut Connection| {
            if !sender.is_closed() {
                let until = Instant::now() + limit;
                // Asked for an end while SQLite works: a reader that one tenant keeps busy is missing to all.
                let bounded = db.progress_handler(READ_STEPS, Some(move || Instant::now() > until));
                let answer = bounded.map_err(StoreError::from).and_then(|()| work(db));
                let _unbounded = db.progress_handler(0, None::<fn() -> bool>);
                let _ = sender.send(answer);
            }
        });
        self.workers.reads.push(lane, job).map_err(refusal)?;
        receiver.await.map_err(|_| gone())?
    }
}

impl Workers {
    fn point_readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // Held for a push or a pop only.
        self.point_readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(refused: Refused) -> StoreError {
    match refused {
        Refused::Full => StoreError::Overloaded,
        Refused::Closed => StoreError::Unavailable { reason: "the store is closed".to_owned() },
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable { reason: "the store did not finish; see the log".to_owned() }
}
