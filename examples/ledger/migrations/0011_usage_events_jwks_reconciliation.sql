-- What was used, the keys by which services know each other, and how far the reconciliation has come.

CREATE TABLE usage_events (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    community_id uuid NOT NULL REFERENCES communities (id),
    request_id   text NOT NULL CHECK (request_id <> ''),
    model        text NOT NULL,
    cost_micro   bigint NOT NULL CHECK (cost_micro >= 0),
    occurred_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (community_id, request_id)
);
COMMENT ON TABLE usage_events IS 'One row for each billed request; append only';
CREATE INDEX usage_events_occurred_at_idx ON usage_events (community_id, occurred_at);
CREATE TRIGGER usage_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_events
    FOR EACH STATEMENT EXECUTE FUNCTION prevent_mutation();
ALTER TABLE usage_events ENABLE ALWAYS TRIGGER usage_events_append_only;
ALTER TABLE usage_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON usage_events
    USING (community_id = app.current_community_id()) WITH CHECK (community_id = app.current_community_id());

-- Of no community: every service reads all keys.
CREATE TABLE s2s_jwks_public_keys (
    kid         text PRIMARY KEY CHECK (kid <> ''),
    jwk         jsonb NOT NULL CHECK (jwk ? 'kty' AND NOT jwk ?| ARRAY['d', 'p', 'q', 'dp', 'dq', 'qi', 'k']),
    valid_from  timestamptz NOT NULL DEFAULT now(),
    valid_until timestamptz,
    CHECK (valid_until IS NULL OR valid_until > valid_from)
);
COMMENT ON TABLE s2s_jwks_public_keys IS 'Public keys (RFC 7517); the check keeps private parts out';

CREATE TABLE reconciliation_cursor (
    name       text PRIMARY KEY CHECK (name <> ''),
    position   bigint NOT NULL CHECK (position >= 0),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE reconciliation_cursor IS 'How far each reconciliation has come';

GRANT SELECT, INSERT ON usage_events TO arrakis_app;
GRANT SELECT ON s2s_jwks_public_keys TO arrakis_app;
GRANT SELECT, INSERT, UPDATE ON reconciliation_cursor TO arrakis_app;
