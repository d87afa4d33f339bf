//! What requests with an `Idempotency-Key` made and answered: a repeat is answered the same, and makes nothing.
//!
//! ```text
//!   no row ──[claim, in the transaction that makes the resource]──▶ claimed ──[answer]──▶ answered
//! ```
//!
//! - **no row**: the key is new, its record was dropped, or the request that had it failed before it made anything.
//! - **claimed**: the resource exists and nobody has been told, as far as is known: a repeat resumes it.
//! - **answered**: a repeat gets the same bytes.
//!
//! Records are dropped by [`Store::prune_claims`]. Beyond [`MAX_RECORDS`] or [`MAX_BYTES`] of one tenant the oldest go
//! first: a flood of keys costs its own tenant the oldest promises, and nobody else anything.

use rusqlite::{Connection, OptionalExtension};

use crate::auth::{SystemContext, Tenant};

use super::Store;
use super::error::{Conflict, StoreError};
use super::row::{MAX_NAME, Millis, cap};
use super::worker::Outlives;

/// Most records of one tenant.
const MAX_RECORDS: i64 = 100_000;
/// Most bytes of answers of one tenant.
const MAX_BYTES: i64 = 256 << 20;
/// Largest answer that is kept. Past it the record stays unanswered, so that a repeat resumes the resource and is
/// answered from that.
const MAX_ANSWER: usize = 256 << 10;
/// Longest path of a request with a key: ids and names of operations are far shorter.
const MAX_PATH: usize = 1024;
/// Most records dropped in one transaction, so that other writers wait little.
const CHUNK: i64 = 500;

/// A request with a key, as the record knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// `POST`
    pub method: String,
    /// The path, ids included.
    pub path: String,
    /// As the client sent it.
    pub key: String,
    /// SHA-256 of the body in canonical JSON.
    pub hash: [u8; 32],
    /// Now.
    pub at: Millis,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Nothing.
    New,
    /// The first request made this and has not been answered.
    Resume {
        /// What it made.
        resource_id: String,
    },
    /// The first request was answered.
    Replay {
        /// HTTP status, 200 to 299.
        status: u16,
        /// The body, byte for byte.
        body: Vec<u8>,
    },
    /// The first request had another body.
    Mismatch,
}

/// Within the transaction that makes `resource_id`: records that this request does. An id: the key has made that one
/// already, and nothing is to be made. [`Conflict::KeyReused`] where it had another body.
pub(super) fn claim(
    db: &Connection,
    tenant: &Tenant,
    claim: &Claim,
    resource_id: &str,
) -> Result<Option<String>, StoreError> {
    cap("Idempotency-Key", &claim.key, MAX_NAME)?;
    cap("path", &claim.path, MAX_PATH)?;
    let mut query = db.prepare_cached(
        "SELECT hash, resource_id FROM idempotency \
         WHERE tenant = ?1 AND method = ?2 AND path = ?3 AND key = ?4",
    )?;
    let known = query
        .query_row((tenant, &claim.method, &claim.path, &claim.key), |row| {
            Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    match known {
        Some((hash, _)) if hash != claim.hash => return Err(Conflict::KeyReused.into()),
        Some((_, resource_id)) => return Ok(Some(resource_id)),
        None => {}
    }
    db.prepare_cached(
        "INSERT INTO idempotency (tenant, method, path, key, hash, resource_id, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((tenant, &claim.method, &claim.path, &claim.key, claim.hash, resource_id, claim.at))?;
    drop_beyond_bounds(db, tenant)?;
    Ok(None)
}

fn drop_beyond_bounds(db: &Connection, tenant: &Tenant) -> Result<(), StoreError> {
    let mut query =
        db.prepare_cached("SELECT records > ?2 OR bytes > ?3 FROM idempotency_use WHERE tenant = ?1")?;
    if query.query_row((tenant, MAX_RECORDS, MAX_BYTES), |row| row.get(0)).optional()? != Some(true) {
        return Ok(());
    }
    // More than was added, so that it is not done again with every request.
    db.prepare_cached(
        "DELETE FROM idempotency WHERE rowid IN \
         (SELECT rowid FROM idempotency WHERE tenant = ?1 ORDER BY created_at LIMIT ?2)",
    )?
    .execute((tenant, CHUNK))?;
    Ok(())
}

fn find(db: &Connection, tenant: &Tenant, claim: &Claim) -> Result<Claimed, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT hash, resource_id, status, body FROM idempotency \
         WHERE tenant = ?1 AND method = ?2 AND path = ?3 AND key = ?4",
    )?;
    let known = query.query_row((tenant, &claim.method, &claim.path, &claim.key), |row| {
        if row.get::<_, [u8; 32]>(0)? != claim.hash {
            return Ok(Claimed::Mismatch);
        }
        Ok(match (row.get(2)?, row.get(3)?) {
            (Some(status), Some(body)) => Claimed::Replay { status, body },
            _ => Claimed::Resume { resource_id: row.get(1)? },
        })
    });
    Ok(known.optional()?.unwrap_or(Claimed::New))
}

impl Store {
    /// What is known of a key, before anything is done for the request that has it.
    pub async fn find_claim(&self, tenant: &Tenant, claim: &Claim) -> Result<Claimed, StoreError> {
        let (owner, claim) = (tenant.clone(), claim.clone());
        self.read_row(tenant, move |db| find(db, &owner, &claim)).await
    }

    /// Keeps the answer of a claimed request: the first stays. Nothing where there is no such record, and where the
    /// answer is too large. Outlives Bay's end, not a power failure: a repeat then resumes the resource.
    pub async fn answer_claim(
        &self,
        tenant: &Tenant,
        claim: &Claim,
        status: u16,
        body: Vec<u8>,
    ) -> Result<(), StoreError> {
        if body.len() > MAX_ANSWER {
            return Ok(());
        }
        let (owner, claim) = (tenant.clone(), claim.clone());
        self.write_to_outlive(Outlives::Bay, tenant, move |db| {
            db.prepare_cached(
                "UPDATE idempotency SET status = ?5, body = ?6 WHERE tenant = ?1 AND method = ?2 AND path = ?3 \
                 AND key = ?4 AND status IS NULL",
            )?
            .execute((&owner, &claim.method, &claim.path, &claim.key, status, body))?;
            Ok(())
        })
        .await
    }

    /// Drops records made before `before`, some hundreds at once; answers how many.
    pub async fn prune_claims(&self, system: &SystemContext, before: Millis) -> Result<usize, StoreError> {
        self.write(system, move |db| {
            let dropped = db
                .prepare_cached(
                    "DELETE FROM idempotency WHERE rowid IN \
                     (SELECT rowid FROM idempotency WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)",
                )?
                .execute((before, CHUNK))?;
            Ok(dropped)
        })
        .await
    }
}

/// Forgets the claims, not answered yet, on what came to nothing: a repeat begins anew.
pub(super) fn free(db: &Connection, tenant: &Tenant, resource_id: &str) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM idempotency WHERE resource_id = ?2 AND tenant = ?1 AND status IS NULL")?
        .execute((tenant, resource_id))?;
    Ok(())
}

/// Forgets what a sandbox's executions were answered: that is what it was told to keep no longer.
pub(super) fn forget_executions(
    db: &Connection,
    tenant: &Tenant,
    sandbox_id: &str,
) -> Result<(), StoreError> {
    // `0` follows `/`: everything beneath the sandbox's own path, and nothing else.
    db.prepare_cached(
        "DELETE FROM idempotency WHERE tenant = ?1 AND method = 'POST' \
         AND path > '/v1/sandboxes/' || ?2 || '/' AND path < '/v1/sandboxes/' || ?2 || '0' \
         AND substr(resource_id, 1, 4) = 'exe_'",
    )?
    .execute((tenant, sandbox_id))?;
    Ok(())
}
