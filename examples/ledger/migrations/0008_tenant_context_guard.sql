-- The tenant context: which community a transaction acts for, and a guard that raises where nobody said.

CREATE SCHEMA app;
COMMENT ON SCHEMA app IS 'Tenant context of the ledger';

-- STABLE, so that one call serves a whole scan; it raises instead of returning NULL, so that forgetting the context is
-- an error and never an empty answer that looks like "no data".
CREATE FUNCTION app.current_community_id() RETURNS uuid
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    setting text := current_setting('app.community_id', true);
BEGIN
    -- A setting that was local to an earlier transaction reads as '' and not as NULL.
    IF setting IS NULL OR setting = '' THEN
        RAISE EXCEPTION 'app.community_id is not set'
            USING ERRCODE = 'P0001', HINT = 'Call app.set_community_context(uuid) first, in the same transaction.';
    END IF;
    RETURN setting::uuid;
END
$$;
COMMENT ON FUNCTION app.current_community_id() IS 'The community this transaction acts for; raises P0001 where none is set';

-- Local to the transaction (third argument), so that a pooled connection cannot carry it to the next client.
CREATE FUNCTION app.set_community_context(community_id uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF community_id IS NULL THEN
        RAISE EXCEPTION 'a community is needed' USING ERRCODE = 'P0001';
    END IF;
    PERFORM set_config('app.community_id', community_id::text, true);
END
$$;
COMMENT ON FUNCTION app.set_community_context(uuid) IS 'Names the community for the rest of this transaction';

REVOKE ALL ON FUNCTION app.current_community_id(), app.set_community_context(uuid) FROM PUBLIC;
GRANT USAGE ON SCHEMA app TO arrakis_app;
GRANT EXECUTE ON FUNCTION app.current_community_id(), app.set_community_context(uuid) TO arrakis_app;
