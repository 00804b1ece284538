-- Who the butlers are: for each, the schema and the role that are its own.

CREATE TABLE shared.registry (
    butler        text PRIMARY KEY CHECK (butler ~ '^[a-z][a-z0-9_]{0,39}$'),
    -- Two butlers in one schema would read each other's rows.
    schema_name   text NOT NULL UNIQUE,
    runtime_role  text NOT NULL UNIQUE,
    -- The public half of its age key: what is encrypted for it, it alone can read.
    age_recipient text CHECK (age_recipient ~ '^age1[a-z0-9]{58}$'),
    registered_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE shared.registry IS 'The butlers, with the schema and the role of each';

CREATE FUNCTION shared.current_butler() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT butler FROM shared.registry WHERE runtime_role = current_user
$$;
COMMENT ON FUNCTION shared.current_butler() IS 'The butler whose role this is; null for every other role';

-- Who changed a row last, and when. Not for the client to say.
CREATE FUNCTION shared.stamp() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at := now();
    NEW.updated_by := current_user;
    RETURN NEW;
END
$$;
