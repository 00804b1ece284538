DROP TABLE reconciliation_cursor;
DROP TABLE s2s_jwks_public_keys;
DROP TABLE usage_events;
