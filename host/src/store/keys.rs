//! API keys: only hashes. Finding one crosses tenants, since the key is what says whose it is.

use rusqlite::{Connection, OptionalExtension, Row};

use crate::auth::{Scope, SystemContext, Tenant};

use super::Store;
use super::error::{Conflict, StoreError};
use super::row::{Json, MAX_NAME, MAX_SCAN, Millis, cap, found};

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
    /// What it may do beyond its tenant's sandboxes.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Millis,
    /// Null: never.
    pub expires_at: Option<Millis>,
    /// Null: not revoked.
    pub revoked_at: Option<Millis>,
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

const COLUMNS: &str = "id, tenant, name, hash, scopes, created_at, expires_at, revoked_at";

fn read(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow {
        id: row.get(0)?,
        tenant: row.get(1)?,
        name: row.get(2)?,
        hash: row.get(3)?,
        scopes: row.get::<_, Json<_>>(4)?.0,
        created_at: row.get(5)?,
        expires_at: row.get(6)?,
        revoked_at: row.get(7)?,
    })
}

fn insert(db: &Connection, tenant: &Tenant, new: NewKey) -> Result<KeyRow, StoreError> {
    cap("id", &new.id, MAX_NAME)?;
    cap("name", &new.name, MAX_NAME)?;
    let made = db
        .prepare_cached(
            "INSERT INTO api_keys (id, tenant, name, hash, scopes, created_at, expires_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )?
        .execute((&new.id, tenant, &new.name, new.hash, Json(&new.scopes), new.created_at, new.expires_at))?;
    if made == 0 {
        return Err(Conflict::IdTaken.into());
    }
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM api_keys WHERE id = ?1"))?;
    found(query.query_row([&new.id], read), "key", &new.id)
}

impl Store {
    /// Stores a key of a tenant.
    pub async fn create_key(&self, tenant: &Tenant, new: NewKey) -> Result<KeyRow, StoreError> {
        let owner = tenant.clone();
        self.write(tenant, move |db| insert(db, &owner, new)).await
    }

    /// Every key of a tenant, newest first, revoked ones too.
    pub async fn list_keys(&self, tenant: &Tenant) -> Result<Vec<KeyRow>, StoreError> {
        let owner = tenant.clone();
        self.read(tenant, move |db| {
            let mut query = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM api_keys WHERE tenant = ?1 ORDER BY created_at DESC, id DESC \
                 LIMIT {MAX_SCAN}"
            ))?;
            Ok(query.query_map([&owner], read)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Revokes a key. Again: keeps the first time.
    pub async fn revoke_key(&self, tenant: &Tenant, id: &str, at: Millis) -> Result<(), StoreError> {
        let (owner, id) = (tenant.clone(), id.to_owned());
        self.write(tenant, move |db| {
            let changed = db
                .prepare_cached(
                    "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?3) WHERE id = ?1 AND tenant = ?2",
                )?
                .execute((&id, &owner, at))?;
            if changed == 0 { Err(StoreError::NotFound { resource: "key", id }) } else { Ok(()) }
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
