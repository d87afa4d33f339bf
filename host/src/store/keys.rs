//! API keys: only hashes. Finding one crosses tenants, since the key is what says whose it is; listing and revoking do,
//! too, because they are an administrator's.

use rusqlite::{Connection, OptionalExtension, Row};

use crate::auth::{Scope, SystemContext, Tenant};

use super::Store;
use super::error::{Conflict, StoreError};
use super::page::{Listing, Page};
use super::row::{Json, MAX_NAME, Millis, cap, found};
use super::worker::Outlives;

/// Most keys of a tenant that are neither expired nor revoked.
const MAX_VALID: u64 = 1000;
/// How many of a tenant's expired and revoked keys are kept to be looked up.
const KEEP_ENDED: u64 = 1000;

/// A key as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// `key_…`
    pub id: String,
    /// Whose requests it makes.
    pub tenant: Tenant,
    /// For people.
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// What it may do, sorted.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Millis,
    /// Null: never.
    pub expires_at: Option<Millis>,
    /// Null: not revoked.
    pub revoked_at: Option<Millis>,
    /// Up to a minute behind; null: never used.
    pub last_used_at: Option<Millis>,
}

impl KeyRow {
    /// Neither expired nor revoked at `now`.
    pub fn is_valid(&self, now: Millis) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

impl std::fmt::Debug for KeyRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRow")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// A key to be stored.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// From [`crate::auth::keys::ApiKey::id`].
    pub id: String,
    /// For people.
    pub name: String,
    /// From [`crate::auth::keys::ApiKey::hash`].
    pub hash: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Now.
    pub created_at: Millis,
    /// Null: never.
    pub expires_at: Option<Millis>,
}

const COLUMNS: &str = "id, tenant, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at";
/// True of a key that works no more at `?2`.
const ENDED: &str = "(revoked_at IS NOT NULL OR (expires_at IS NOT NULL AND expires_at <= ?2))";

fn read(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    let mut scopes: Vec<Scope> = row.get::<_, Json<_>>(4)?.0;
    scopes.sort_unstable();
    Ok(KeyRow {
        id: row.get(0)?,
        tenant: row.get(1)?,
        name: row.get(2)?,
        hash: row.get(3)?,
        scopes,
        created_at: row.get(5)?,
        expires_at: row.get(6)?,
        revoked_at: row.get(7)?,
        last_used_at: row.get(8)?,
    })
}

fn insert(db: &Connection, tenant: &Tenant, new: NewKey) -> Result<KeyRow, StoreError> {
    cap("id", &new.id, MAX_NAME)?;
    cap("name", &new.name, MAX_NAME)?;
    db.prepare_cached(&format!(
        "DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE tenant = ?1 AND {ENDED} \
         ORDER BY created_at DESC, id DESC LIMIT -1 OFFSET {KEEP_ENDED})"
    ))?
    .execute((tenant, new.created_at))?;
    let valid: u64 = db
        .prepare_cached(&format!("SELECT count(*) FROM api_keys WHERE tenant = ?1 AND NOT {ENDED}"))?
        .query_row((tenant, new.created_at), |row| row.get(0))?;
    if valid >= MAX_VALID {
        return Err(Conflict::TooManyKeys { limit: MAX_VALID, used: valid }.into());
    }
    let made = db
        .prepare_cached(
            "INSERT INTO api_keys (id, tenant, name, hash, scopes, created_at, expires_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )?
        .execute((&new.id, tenant, &new.name, new.hash, Json(&new.scopes), new.created_at, new.expires_at))?;
    if made == 0 {
        return Err(Conflict::IdTaken.into());
    }
    get(db, &new.id)
}

fn get(db: &Connection, id: &str) -> Result<KeyRow, StoreError> {
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM api_keys WHERE id = ?1"))?;
    found(query.query_row([id], read), "key", id)
}

fn list(db: &Connection, tenant: Option<&Tenant>, page: &Page) -> Result<Listing<KeyRow>, StoreError> {
    let (created_at, id) = page.below();
    let more = page.size() + 1;
    let of_tenant = if tenant.is_some() { "tenant = ?4 AND" } else { "" };
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM api_keys WHERE {of_tenant} (created_at, id) < (?1, ?2) \
         ORDER BY created_at DESC, id DESC LIMIT ?3"
    ))?;
    let rows = match tenant {
        Some(tenant) => query.query_map((created_at, id, more, tenant), read)?.collect::<Result<_, _>>()?,
        None => query.query_map((created_at, id, more), read)?.collect::<Result<_, _>>()?,
    };
    Ok(Listing::from_rows(rows, page, |row: &KeyRow| (row.created_at, &row.id)))
}

impl Store {
    /// Stores a key of a tenant. Forgets the tenant's oldest expired and revoked keys where there are very many.
    pub async fn create_key(&self, tenant: &Tenant, new: NewKey) -> Result<KeyRow, StoreError> {
        let owner = tenant.clone();
        self.write(tenant, move |db| insert(db, &owner, new)).await
    }

    /// Keys of one tenant or of all, newest first, expired and revoked ones too.
    pub async fn list_keys(
        &self,
        system: &SystemContext,
        tenant: Option<Tenant>,
        page: Page,
    ) -> Result<Listing<KeyRow>, StoreError> {
        self.read(system, move |db| list(db, tenant.as_ref(), &page)).await
    }

    /// Revokes a key, whosever it is. Again: keeps the first time.
    pub async fn revoke_key(
        &self,
        system: &SystemContext,
        id: &str,
        at: Millis,
    ) -> Result<KeyRow, StoreError> {
        let id = id.to_owned();
        self.write(system, move |db| {
            db.prepare_cached("UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1")?
                .execute((&id, at))?;
            get(db, &id)
        })
        .await
    }

    /// Notes that a key was used. The last minute of this may go with a power failure.
    pub async fn key_used(&self, tenant: &Tenant, id: &str, at: Millis) -> Result<(), StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write_to_outlive(Outlives::Bay, tenant, move |db| {
            db.prepare_cached(
                "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, 0), ?3) WHERE id = ?1 AND tenant = ?2",
            )?
            .execute((&id, &owner, at))?;
            Ok(())
        })
        .await
    }

    /// A key by its id, whosever it is. The caller checks secret and validity, in that order and always both.
    pub async fn find_key(&self, system: &SystemContext, id: &str) -> Result<Option<KeyRow>, StoreError> {
        let id = id.to_owned();
        self.read_row(system, move |db| {
            let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM api_keys WHERE id = ?1"))?;
            Ok(query.query_row([&id], read).optional()?)
        })
        .await
    }

    /// How many keys there are, of any tenant: none means that this is the first start.
    pub async fn count_keys(&self, system: &SystemContext) -> Result<u64, StoreError> {
        self.read(system, |db| {
            Ok(db.query_row("SELECT count(*) FROM api_keys", [], |row| row.get::<_, u64>(0))?)
        })
        .await
    }
}
