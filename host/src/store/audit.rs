//! The audit log: who did what to what, and how it ended. Bounded by age and by count.

use rusqlite::{Connection, Row, named_params};

use crate::auth::{SystemContext, Tenant};
use crate::id::Kind;

use super::Store;
use super::error::StoreError;
use super::page::{Listing, Page};
use super::row::{MAX_NAME, Millis, clip};
use super::worker::Outlives;

/// Most entries that one pruning takes out.
const MAX_PRUNED: usize = 1000;

/// An entry about to be written.
#[derive(Debug, Clone)]
pub struct NewAudit {
    /// Now.
    pub at: Millis,
    /// `key_…`; null: anonymous.
    pub key_id: Option<String>,
    /// A namespaced string, as rules know it: `locker.files.read`.
    pub action: String,
    /// Id of what it was done to.
    pub resource: Option<String>,
    /// `ok`, or the code of an error; null: not known yet.
    pub outcome: Option<String>,
    /// What else there is to say; never anything that a client sent.
    pub detail: Option<String>,
    /// Bay's id of the request.
    pub request_id: String,
    /// Address of the client.
    pub client: Option<String>,
}

/// An entry as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// `aud_…`
    pub id: String,
    /// When.
    pub at: Millis,
    /// Whose request.
    pub tenant: Tenant,
    /// With which key.
    pub key_id: Option<String>,
    /// What was asked.
    pub action: String,
    /// Of what.
    pub resource: Option<String>,
    /// How it ended; null: not known, because it goes on or Bay ended meanwhile.
    pub outcome: Option<String>,
    /// What else there is to say.
    pub detail: Option<String>,
    /// Bay's id of the request.
    pub request_id: String,
    /// Address of the client.
    pub client: Option<String>,
}

/// What the log is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Exactly this tenant's.
    pub tenant: Option<Tenant>,
    /// Exactly this action.
    pub action: Option<String>,
    /// Not before this.
    pub since: Option<Millis>,
}

const COLUMNS: &str = "id, at, tenant, key_id, action, resource, outcome, detail, request_id, client";

fn read(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        id: row.get(0)?,
        at: row.get(1)?,
        tenant: row.get(2)?,
        key_id: row.get(3)?,
        action: row.get(4)?,
        resource: row.get(5)?,
        outcome: row.get(6)?,
        detail: row.get(7)?,
        request_id: row.get(8)?,
        client: row.get(9)?,
    })
}

fn insert(db: &Connection, tenant: &Tenant, new: NewAudit) -> Result<String, StoreError> {
    let id = Kind::Audit.mint();
    let short = |text: String| clip(text, MAX_NAME);
    db.prepare_cached(&format!(
        "INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
    ))?
    .execute((
        &id,
        new.at,
        tenant,
        new.key_id.map(short),
        short(new.action),
        new.resource.map(short),
        new.outcome.map(short),
        new.detail.map(short),
        short(new.request_id),
        new.client.map(short),
    ))?;
    Ok(id)
}

fn list(db: &Connection, filter: &AuditFilter, page: &Page) -> Result<Listing<AuditRow>, StoreError> {
    let (below_at, below_id) = page.below();
    // Two texts, so that each has its index.
    let of_tenant = if filter.tenant.is_some() { "tenant = :tenant" } else { ":tenant IS NULL" };
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM audit WHERE {of_tenant} AND (at, id) < (:below_at, :below_id) AND at >= :since \
         AND (:action IS NULL OR action = :action) ORDER BY at DESC, id DESC LIMIT :rows"
    ))?;
    let rows = query.query_map(
        named_params! {
            ":tenant": filter.tenant,
            ":below_at": below_at,
            ":below_id": below_id,
            ":since": filter.since.unwrap_or(Millis::MIN),
            ":action": filter.action,
            ":rows": page.size() + 1,
        },
        read,
    )?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(Listing::from_rows(rows, page, |row| (row.at, &row.id)))
}

fn prune(db: &Connection, before: Millis, keep: usize) -> Result<usize, StoreError> {
    let old = db
        .prepare_cached(&format!(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 ORDER BY at, id LIMIT {MAX_PRUNED})"
        ))?
        .execute([before])?;
    let count: usize = db.prepare_cached("SELECT count(*) FROM audit")?.query_row([], |row| row.get(0))?;
    let over = count.saturating_sub(keep).min(MAX_PRUNED);
    let more = if over == 0 {
        0
    } else {
        // Of the tenant that has the most: nobody can write so much that what others did is forgotten.
        db.prepare_cached(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE tenant = \
             (SELECT tenant FROM audit GROUP BY tenant ORDER BY count(*) DESC LIMIT 1) ORDER BY at, id LIMIT ?1)",
        )?
        .execute([over])?
    };
    Ok(old + more)
}

impl Store {
    /// Writes an entry; its id. It outlives Bay's own end, not a power failure: nobody waits for the disk here.
    pub async fn record_audit(&self, tenant: &Tenant, new: NewAudit) -> Result<String, StoreError> {
        let owner = tenant.clone();
        self.write_to_outlive(Outlives::Bay, tenant, move |db| insert(db, &owner, new)).await
    }

    /// Says how an entry ended.
    pub async fn finish_audit(&self, tenant: &Tenant, id: &str, outcome: &str) -> Result<(), StoreError> {
        let (owner, id, outcome) = (tenant.clone(), id.to_owned(), clip(outcome.to_owned(), MAX_NAME));
        self.write_to_outlive(Outlives::Bay, tenant, move |db| {
            db.prepare_cached("UPDATE audit SET outcome = ?3 WHERE id = ?1 AND tenant = ?2")?
                .execute((&id, &owner, &outcome))?;
            Ok(())
        })
        .await
    }

    /// The log, newest first.
    pub async fn list_audit(
        &self,
        system: &SystemContext,
        filter: AuditFilter,
        page: Page,
    ) -> Result<Listing<AuditRow>, StoreError> {
        self.read(system, move |db| list(db, &filter, &page)).await
    }

    /// Takes out what is older than `before`, and beyond `keep` entries the oldest of the tenant that has the most.
    /// Answers how many; a bounded number at once.
    pub async fn prune_audit(
        &self,
        system: &SystemContext,
        before: Millis,
        keep: usize,
    ) -> Result<usize, StoreError> {
        self.write(system, move |db| prune(db, before, keep)).await
    }
}
