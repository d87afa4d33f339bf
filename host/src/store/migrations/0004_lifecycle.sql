-- What a POST with an Idempotency-Key made and answered. A row without an answer: the first request has not ended, or
-- ended without one; a repeat resumes what it made.
CREATE TABLE idempotency (
    tenant      TEXT NOT NULL,
    method      TEXT NOT NULL,
    path        TEXT NOT NULL,
    key         TEXT NOT NULL,
    hash        BLOB NOT NULL CHECK (length(hash) = 32),
    resource_id TEXT NOT NULL,
    status      INTEGER,
    created_at  INTEGER NOT NULL,
    body        BLOB,
    UNIQUE (tenant, method, path, key)
) STRICT;
CREATE INDEX idempotency_age ON idempotency (created_at);
CREATE INDEX idempotency_open ON idempotency (resource_id) WHERE status IS NULL;
CREATE INDEX idempotency_tenant ON idempotency (tenant, created_at);

-- How much of it each tenant has, kept by triggers so that no code path can forget it: counting would scan.
CREATE TABLE idempotency_use (
    tenant  TEXT PRIMARY KEY,
    records INTEGER NOT NULL,
    bytes   INTEGER NOT NULL             -- of the stored answers
) STRICT;
CREATE TRIGGER idempotency_added AFTER INSERT ON idempotency BEGIN
    INSERT INTO idempotency_use (tenant, records, bytes) VALUES (new.tenant, 1, coalesce(length(new.body), 0))
    ON CONFLICT (tenant) DO UPDATE SET records = records + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER idempotency_answered AFTER UPDATE OF body ON idempotency BEGIN
    UPDATE idempotency_use SET bytes = bytes + coalesce(length(new.body), 0) - coalesce(length(old.body), 0)
    WHERE tenant = new.tenant;
END;
CREATE TRIGGER idempotency_removed AFTER DELETE ON idempotency BEGIN
    UPDATE idempotency_use SET records = records - 1, bytes = bytes - coalesce(length(old.body), 0)
    WHERE tenant = old.tenant;
    DELETE FROM idempotency_use WHERE tenant = old.tenant AND records = 0;
END;

-- A sandbox's own idle time, where its profile lets clients choose one; null: the profile's.
ALTER TABLE sandboxes ADD COLUMN idle_timeout_ms INTEGER;
