-- Until now every key could use its tenant's sandboxes; from here on that is a scope, and keys that exist have it.
UPDATE api_keys SET scopes = json_insert(scopes, '$[#]', 'sandboxes');

-- Written at most once a minute, so it may lie that far behind.
ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER;

CREATE INDEX api_keys_all ON api_keys (created_at, id);
