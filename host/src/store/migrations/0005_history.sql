-- What history needs to know of an execution without reading its row, which can be megabytes; what people add to it;
-- and where it ran.

CREATE TABLE history (
    execution_id TEXT PRIMARY KEY REFERENCES executions (id) ON DELETE CASCADE,
    tenant       TEXT NOT NULL,
    sandbox_id   TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    ended_at     INTEGER,
    container    TEXT,                   -- its name in the session
    listed       INTEGER NOT NULL,       -- 0: the profile keeps no history, and the record goes soon after its end
    bytes        INTEGER NOT NULL DEFAULT 0,
    notes        TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX history_sizes ON history (tenant, created_at, execution_id, sandbox_id, listed, bytes, ended_at);
INSERT INTO history (execution_id, tenant, sandbox_id, created_at, ended_at, listed)
    SELECT id, tenant, sandbox_id, created_at, ended_at, 1 FROM executions;
