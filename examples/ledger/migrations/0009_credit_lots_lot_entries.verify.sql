-- Row level security is enabled and forced on both tables.
-- expect: 2 rows
SELECT relname FROM pg_catalog.pg_class
WHERE oid IN ('credit_lots'::regclass, 'lot_entries'::regclass) AND relrowsecurity AND relforcerowsecurity;

-- The view reads with the caller's rights.
-- expect: value = 't'
SELECT reloptions @> ARRAY['security_invoker=true'] FROM pg_catalog.pg_class WHERE oid = 'lot_balances'::regclass;

-- Without a context the policy raises: not "0 rows".
-- as: arrakis_app
-- expect: error P0001 ~ 'app.community_id is not set'
SELECT id FROM credit_lots;

-- Every append-only trigger is enabled ALWAYS.
-- expect: 4 rows
SELECT tgname FROM pg_catalog.pg_trigger
WHERE tgrelid IN ('credit_lots'::regclass, 'lot_entries'::regclass) AND NOT tgisinternal AND tgenabled = 'A';
