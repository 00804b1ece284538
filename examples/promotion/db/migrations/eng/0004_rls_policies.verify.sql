-- Row security is enabled and forced.
-- expect: value = 't'
SELECT relrowsecurity AND relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = 'eng.strategic_directives_v2'::regclass;

-- The owner adds nothing: no policy lets it.
-- expect: error 42501 ~ 'row-level security'
INSERT INTO eng.strategic_directives_v2 (code, title) VALUES ('SD-VERIFY', 'Verify');
