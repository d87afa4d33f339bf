-- What quotas count, each by an index of its own.
CREATE INDEX sessions_tenant ON sessions (tenant, state) WHERE state IN ('starting', 'ready', 'stopping');
CREATE INDEX executions_tenant ON executions (tenant) WHERE status = 'running';
CREATE INDEX lockers_quota ON lockers (tenant, size_limit_mb) WHERE managed_by IS NULL AND deleted_at IS NULL;

-- What a tenant's history keeps, in bytes. Only the triggers write it, so that nothing can forget to.
CREATE TABLE history_bytes (
    tenant TEXT PRIMARY KEY,
    bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO history_bytes
    SELECT tenant, sum(coalesce(octet_length(description), 0) + coalesce(octet_length(tags), 0)
        + coalesce(octet_length(code), 0) + coalesce(octet_length(output), 0)
        + coalesce(octet_length(error), 0) + coalesce(octet_length(result), 0))
    FROM executions GROUP BY tenant;
CREATE TRIGGER history_bytes_insert AFTER INSERT ON executions BEGIN
    INSERT INTO history_bytes VALUES (new.tenant,
        coalesce(octet_length(new.description), 0) + coalesce(octet_length(new.tags), 0)
        + coalesce(octet_length(new.code), 0) + coalesce(octet_length(new.output), 0)
        + coalesce(octet_length(new.error), 0) + coalesce(octet_length(new.result), 0))
    ON CONFLICT (tenant) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER history_bytes_update AFTER UPDATE OF description, tags, code, output, error, result ON executions BEGIN
    UPDATE history_bytes SET bytes = bytes
        + coalesce(octet_length(new.description), 0) - coalesce(octet_length(old.description), 0)
        + coalesce(octet_length(new.tags), 0) - coalesce(octet_length(old.tags), 0)
        + coalesce(octet_length(new.code), 0) - coalesce(octet_length(old.code), 0)
        + coalesce(octet_length(new.output), 0) - coalesce(octet_length(old.output), 0)
        + coalesce(octet_length(new.error), 0) - coalesce(octet_length(old.error), 0)
        + coalesce(octet_length(new.result), 0) - coalesce(octet_length(old.result), 0)
    WHERE tenant = new.tenant;
END;
CREATE TRIGGER history_bytes_delete AFTER DELETE ON executions BEGIN
    UPDATE history_bytes SET bytes = bytes
        - coalesce(octet_length(old.description), 0) - coalesce(octet_length(old.tags), 0)
        - coalesce(octet_length(old.code), 0) - coalesce(octet_length(old.output), 0)
        - coalesce(octet_length(old.error), 0) - coalesce(octet_length(old.result), 0)
    WHERE tenant = old.tenant;
END;
