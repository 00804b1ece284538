-- A schema serves one butler.
-- expect: error 23505 ~ 'registry_schema_name_key'
INSERT INTO shared.registry (butler, schema_name, runtime_role)
VALUES ('verify_a', 'verify', 'verify_a_app'), ('verify_b', 'verify', 'verify_b_app');

-- A name that could be more than a name is refused.
-- expect: error 23514 ~ 'registry_butler_check'
INSERT INTO shared.registry (butler, schema_name, runtime_role) VALUES ('a"; DROP SCHEMA shared', 'a', 'a_app');

-- The role that runs this is no butler's, until it is registered.
-- expect: value = 'verify'
INSERT INTO shared.registry (butler, schema_name, runtime_role) VALUES ('verify', 'verify', current_user);
SELECT shared.current_butler();
