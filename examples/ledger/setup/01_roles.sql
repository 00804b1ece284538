-- What stands before the migrations: the application's runtime role. It owns nothing, and no attribute lifts it above RLS.
DO $$
BEGIN
    CREATE ROLE arrakis_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
EXCEPTION WHEN duplicate_object THEN
    NULL;  -- roles belong to the cluster; another database of it may have brought this one along
END
$$;
