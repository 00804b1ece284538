-- What a Supabase project has beforehand, for throwaway servers; and the role that the applications log in as. `pgrunbook review
-- --target` has made the target's roles already.
DO $$
DECLARE
    want record;
BEGIN
    FOR want IN SELECT * FROM (VALUES
        ('anon', 'NOLOGIN'), ('authenticated', 'NOLOGIN'), ('service_role', 'NOLOGIN BYPASSRLS'), ('bot_app', 'LOGIN')
    ) AS want (name, attributes) LOOP
        IF to_regrole(want.name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I %s', want.name, want.attributes);
        END IF;
    END LOOP;
END $$;
