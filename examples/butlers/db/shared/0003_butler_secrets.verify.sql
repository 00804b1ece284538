-- A value in the clear is refused.
-- expect: error 23514 ~ 'butler_secrets_value_check'
INSERT INTO shared.butler_secrets (secret_key, value) VALUES ('verify', 'in the clear');

-- Row security is enabled, and binds the owner too.
-- expect: value = 't'
SELECT relrowsecurity AND relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = 'shared.butler_secrets'::regclass;
