-- Times are milliseconds since 1970. JSON columns hold text that Bay itself wrote.

CREATE TABLE lockers (
    id               TEXT PRIMARY KEY,
    tenant           TEXT NOT NULL,
    name             TEXT,
    managed_by       TEXT,               -- the one sandbox it lives and dies with; null: external
    backend          TEXT NOT NULL,      -- kind of volume: directory, docker_volume
    backend_ref      TEXT,               -- null until the first start made the volume
    labels           TEXT NOT NULL,
    size_limit_mb    INTEGER,
    created_at       INTEGER NOT NULL,
    last_accessed_at INTEGER NOT NULL,
    deleted_at       INTEGER             -- intent: the volume is to go; the row goes after it
) STRICT;
CREATE INDEX lockers_list ON lockers (tenant, created_at, id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX lockers_name ON lockers (tenant, name) WHERE name IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX lockers_managed ON lockers (managed_by) WHERE managed_by IS NOT NULL;
CREATE INDEX lockers_removal ON lockers (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE sandboxes (
    id              TEXT PRIMARY KEY,
    tenant          TEXT NOT NULL,
    profile         TEXT NOT NULL,
    locker_id       TEXT NOT NULL,       -- no foreign key: a tombstone outlives its locker
    name            TEXT,
    labels          TEXT NOT NULL,
    env             TEXT NOT NULL,       -- secret
    capabilities    TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER,
    last_active_at  INTEGER NOT NULL,
    idle_expires_at INTEGER,
    session_seq     INTEGER NOT NULL DEFAULT 0,
    generation      INTEGER NOT NULL DEFAULT 0,
    failure         TEXT,
    deleted_at      INTEGER
) STRICT;
CREATE INDEX sandboxes_list ON sandboxes (tenant, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX sandboxes_locker ON sandboxes (locker_id);
CREATE INDEX sandboxes_expiry ON sandboxes (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX sandboxes_idle ON sandboxes (idle_expires_at) WHERE idle_expires_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX sandboxes_tombstone ON sandboxes (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    sandbox_id TEXT NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
    tenant     TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('starting', 'ready', 'stopping', 'ended', 'failed', 'lost')),
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    reason     TEXT,
    containers TEXT NOT NULL,
    cleaned_at INTEGER                   -- every container of it is known to be gone
) STRICT;
CREATE UNIQUE INDEX sessions_live ON sessions (sandbox_id) WHERE state IN ('starting', 'ready', 'stopping');
CREATE UNIQUE INDEX sessions_seq ON sessions (sandbox_id, seq);
CREATE INDEX sessions_uncleaned ON sessions (id) WHERE cleaned_at IS NULL;

CREATE TABLE executions (
    id                TEXT PRIMARY KEY,
    tenant            TEXT NOT NULL,
    sandbox_id        TEXT NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
    session_seq       INTEGER,
    kernel_seq        INTEGER,
    exec_type         TEXT NOT NULL CHECK (exec_type IN ('python', 'shell', 'plugin')),
    capability        TEXT NOT NULL,
    operation         TEXT NOT NULL,
    status            TEXT NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'error', 'lost')),
    success           INTEGER,
    execution_time_ms INTEGER,
    plugin            TEXT NOT NULL,
    plugin_digest     TEXT NOT NULL,
    created_at        INTEGER NOT NULL,
    ended_at          INTEGER,
    result_dropped    INTEGER NOT NULL DEFAULT 0,
    -- What can be large comes last: SQLite walks a row from its beginning.
    description       TEXT,
    tags              TEXT,
    code              TEXT,
    output            TEXT,
    error             TEXT,
    result            TEXT
) STRICT;
CREATE INDEX executions_list ON executions (sandbox_id, created_at, id);
CREATE INDEX executions_running ON executions (id) WHERE status = 'running';
CREATE INDEX executions_age ON executions (created_at);

CREATE TABLE api_keys (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL CHECK (length(hash) = 32),
    scopes     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE INDEX api_keys_list ON api_keys (tenant, created_at, id);
