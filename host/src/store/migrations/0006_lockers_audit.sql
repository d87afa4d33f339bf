-- What lockers hold, as of the last bounded walk.
ALTER TABLE lockers ADD COLUMN used_bytes INTEGER;     -- null: never walked, or the walk passed its bound
ALTER TABLE lockers ADD COLUMN used_bytes_at INTEGER;  -- null: never walked
CREATE INDEX lockers_managed_list ON lockers (tenant, created_at, id) WHERE managed_by IS NOT NULL AND deleted_at IS NULL;

-- That a locker was deleted is known for a while after its row has gone with its volume.
CREATE TABLE locker_tombstones (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    deleted_at INTEGER NOT NULL
) STRICT;
CREATE INDEX locker_tombstones_age ON locker_tombstones (deleted_at);

-- A locker's files are served without its sandboxes by a sandbox of Bay's own (`fsb_…`), one a locker. Its row is a
-- tombstone from the beginning: no client ever finds it, and nothing that is counted counts it.
CREATE UNIQUE INDEX sandboxes_files ON sandboxes (locker_id) WHERE substr(id, 1, 4) = 'fsb_';

CREATE TABLE audit (
    id         TEXT PRIMARY KEY,
    at         INTEGER NOT NULL,
    tenant     TEXT NOT NULL,
    key_id     TEXT,                  -- null: anonymous
    action     TEXT NOT NULL,
    resource   TEXT,
    outcome    TEXT,                  -- ok, or the code of an error; null: not known, Bay ended meanwhile
    detail     TEXT,
    request_id TEXT NOT NULL,
    client     TEXT
) STRICT;
CREATE INDEX audit_list ON audit (at, id);
CREATE INDEX audit_tenant ON audit (tenant, at, id);
