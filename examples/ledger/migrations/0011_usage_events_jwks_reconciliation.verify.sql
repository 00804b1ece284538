-- The append-only trigger stops UPDATE, DELETE and TRUNCATE: 56 is the sum of their bits in tgtype (16, 8 and 32).
-- expect: value = 't'
SELECT tgtype & 56 = 56 AND tgenabled = 'A' FROM pg_catalog.pg_trigger
WHERE tgrelid = 'usage_events'::regclass AND tgname = 'usage_events_append_only';

-- expect: error P0001 ~ 'usage_events is append only: TRUNCATE is not allowed'
TRUNCATE usage_events;

-- A private key does not get in.
-- expect: error 23514
INSERT INTO s2s_jwks_public_keys (kid, jwk) VALUES ('verify', '{"kty": "OKP", "crv": "Ed25519", "x": "AA", "d": "AA"}');
