//! Opening connections, and bringing an older database up to date.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::OpenError;

/// The database within the data directory.
pub(super) const FILE: &str = "bay.db";
/// `BAY1` in the header: a database of another program is refused, never migrated.
const APPLICATION_ID: i32 = 0x4241_5931;
/// Only a backup or a curious operator's `sqlite3` ever holds a lock that one of ours waits for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements kept a connection: more than there are queries.
const STATEMENTS: usize = 128;
/// Each takes the schema from its index to the next version. Released ones are frozen.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_init.sql"),
    include_str!("migrations/0002_keys.sql"),
    include_str!("migrations/0003_quotas.sql"),
    include_str!("migrations/0004_lifecycle.sql"),
    include_str!("migrations/0005_history.sql"),
    include_str!("migrations/0006_lockers_audit.sql"),
];

/// The one connection that writes: makes the file, sets the journal, migrates.
pub(super) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    // SQLite gives its journal files the database's own mode: nobody else reads what tenants store.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| OpenError::Io { what: format!("cannot write {}", path.display()), source })?;
    open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, MIGRATIONS)
}

fn open(path: &Path, access: OpenFlags, migrations: &[&str]) -> Result<Connection, OpenError> {
    let wrong = |source| OpenError::Database { path: path.to_owned(), source };
    let mut db = connect(path, access).map_err(wrong)?;
    refuse_foreign(&db, path, migrations.len())?;
    db.pragma_update(None, "journal_mode", "wal").map_err(wrong)?;
    db.pragma_update(None, "synchronous", "full").map_err(wrong)?;
    // What is deleted is overwritten: payloads of deleted sandboxes, env.
    db.pragma_update(None, "secure_delete", "on").map_err(wrong)?;
    // After a burst the log shrinks again.
    db.pragma_update(None, "journal_size_limit", 64 << 20).map_err(wrong)?;
    migrate(&mut db, migrations).map_err(wrong)?;
    Ok(db)
}

/// A connection that cannot write, whatever is asked of it.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let wrong = |source| OpenError::Database { path: path.to_owned(), source };
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(wrong)?;
    db.pragma_update(None, "query_only", "on").map_err(wrong)?;
    Ok(db)
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Without SQLITE_OPEN_URI: a path is only ever a path.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without it SQLite plans a statement anew whenever a bound value might matter to a partial index, which is
    // with every call: fifteen times the cost of the lookup itself.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.pragma_update(None, "foreign_keys", "on")?;
    db.pragma_update(None, "trusted_schema", "off")?;
    Ok(db)
}

fn refuse_foreign(db: &Connection, path: &Path, known: usize) -> Result<(), OpenError> {
    let wrong = |source| OpenError::Database { path: path.to_owned(), source };
    let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(wrong)?;
    let found = user_version(db).map_err(wrong)?;
    let tables: u32 =
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(wrong)?;
    let empty = application == 0 && found == 0 && tables == 0;
    if application != APPLICATION_ID && !empty {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let known = u32::try_from(known).unwrap_or(u32::MAX);
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

fn user_version(db: &Connection) -> rusqlite::Result<u32> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Every step in a transaction with its version: a Bay killed in between starts again where it was.
fn migrate(db: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let from = user_version(db)?;
    for (version, sql) in (1u32..).zip(migrations).skip(from as usize) {
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step.execute_batch(sql)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", version)?;
        step.commit()?;
    }
    Ok(())
}
