-- Which migrations came and went, in the words of the migrations themselves: for those who read the database and not the tool.

CREATE TABLE audit.migration_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain      text NOT NULL CHECK (chain IN ('audit', 'eng', 'vh')),
    version    text NOT NULL CHECK (version ~ '^[0-9]{4}$'),
    direction  text NOT NULL CHECK (direction IN ('up', 'down')),
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE audit.migration_log IS 'Migrations applied and taken back; append only';

CREATE FUNCTION audit.log_migration(chain text, version text, direction text) RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
AS $$
INSERT INTO audit.migration_log (chain, version, direction) VALUES (chain, version, direction)
$$;
COMMENT ON FUNCTION audit.log_migration(text, text, text) IS 'The last statement of every migration, up and down';

SELECT audit.log_migration('audit', '0001', 'up');
