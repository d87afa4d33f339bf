//! What can go wrong, without a word of HTTP.

use std::path::PathBuf;

use super::row::Millis;

/// Why the database could not be opened. For the operator: each says what to do where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another Bay has this data directory.
    #[error(
        "{} is in use by another Bay ({}); stop it, or choose another data directory",
        data_dir.display(), holder.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"))
    )]
    Locked {
        /// The directory.
        data_dir: PathBuf,
        /// Who holds it, when it said so.
        holder: Option<u32>,
    },
    /// Written by a newer Bay.
    #[error(
        "{} has schema version {found}; this Bay knows versions up to {known}. \
         Start the newer Bay again, or restore a copy made before the upgrade", path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// A database, but of another program.
    #[error("{} is a database that Bay did not make; move it away or choose another data directory", .0.display())]
    Foreign(PathBuf),
    /// SQLite could not open, read or migrate it.
    #[error("cannot open the database {}: {source}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}

/// Why a query has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No such row, or another tenant's: the two are the same to a caller.
    #[error("{resource} {id} not found")]
    NotFound {
        /// `sandbox`, `locker`, `session`, `execution`, `key`.
        resource: &'static str,
        /// As asked for.
        id: String,
    },
    /// The row is not in the state this needs.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Past a hard bound of the store. The edge validates long before; this stops what slipped through.
    #[error("{field} is too large: at most {max}")]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// Bytes, or entries of a collection.
        max: usize,
    },
    /// The tenant has as much as it may. Waiting does not help, removing something does.
    #[error("the quota of {quota} is used up: {used} of {limit}")]
    QuotaExceeded {
        /// As [`super::Quota::as_str`] has it.
        quota: &'static str,
        /// What it may have.
        limit: u64,
        /// What it has.
        used: u64,
    },
    /// More work waits than the store accepts from this tenant, or at all. Nothing was written.
    #[error("the store has too much work queued")]
    Overloaded,
    /// A question took longer than one may.
    #[error("the question takes too long")]
    TooSlow,
    /// The disk is full, the file is damaged or unreadable, or Bay is shutting down. Whether a write that met
    /// this at commit is on disk is unknown; reconcile finds out.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// For the log.
        reason: String,
    },
    /// A mistake in the store itself.
    #[error("store bug: {reason}")]
    Internal {
        /// For the log.
        reason: String,
    },
}

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The sandbox has a live session already.
    #[error("the sandbox has a live session already")]
    SessionLive,
    /// The session has moved on: another generation, or a state this transition does not start from.
    #[error("the session has moved on")]
    Stale,
    /// The sandbox's time is up.
    #[error("the sandbox expired")]
    Expired {
        /// When.
        expires_at: Millis,
    },
    /// The sandbox never expires.
    #[error("the sandbox never expires")]
    TtlInfinite,
    /// The sandbox would live too long.
    #[error("the sandbox would live too long")]
    PastLatest {
        /// The latest end it may have.
        latest: Millis,
    },
    /// The locker belongs to one sandbox.
    #[error("the locker is managed by a sandbox")]
    LockerManaged {
        /// Which.
        sandbox_id: String,
    },
    /// Sandboxes use the locker.
    #[error("sandboxes use the locker")]
    LockerInUse {
        /// Which, at most [`super::row::MAX_LISTED`].
        sandbox_ids: Vec<String>,
    },
    /// Another locker of this tenant has the name.
    #[error("the name is taken")]
    NameTaken,
    /// As many sandboxes that serve lockers' files run as may.
    #[error("too many lockers are being read or written")]
    FilesFull,
    /// The execution has ended already.
    #[error("the execution has ended already")]
    Finished,
    /// There is such an id already.
    #[error("there is such an id already")]
    IdTaken,
    /// The idempotency key came with another body before.
    #[error("this Idempotency-Key was used with another body; use a new one for a new request")]
    KeyReused,
    /// The tenant has as many valid API keys as a tenant may have.
    #[error("the tenant has {used} valid API keys, at most {limit} are possible; revoke some")]
    TooManyKeys {
        /// How many it may have.
        limit: u64,
        /// How many it has.
        used: u64,
    },
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(Code::ConstraintViolation | Code::TypeMismatch | Code::ApiMisuse | Code::Unknown)
            | Some(Code::ParameterOutOfRange) => Self::Internal { reason },
            Some(Code::OperationInterrupted) => Self::TooSlow,
            // Everything else of SQLite's is about the file, the disk or memory; and a value that does not
            // decode is a row that Bay did not write.
            Some(_) => Self::Unavailable { reason },
            None => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..) => {
                    Self::Unavailable { reason: format!("a row is damaged: {reason}") }
                }
                _ => Self::Internal { reason },
            },
        }
    }
}
