-- Every change to the rows of eng and vh, written by triggers of their tables.

CREATE TABLE audit.change_log (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by   text NOT NULL DEFAULT current_user,
    operation    text NOT NULL CHECK (operation IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')),
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    row_id       text,
    before       jsonb,
    after        jsonb
);
COMMENT ON TABLE audit.change_log IS 'Every change to the rows of eng and vh; append only, written by triggers alone';
CREATE INDEX change_log_changed_at_idx ON audit.change_log (changed_at);

-- Runs with the rights of whoever changes the row: each application's role may insert here, and only here.
CREATE FUNCTION audit.record_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    was jsonb := to_jsonb(OLD);
    becomes jsonb := to_jsonb(NEW);
BEGIN
    INSERT INTO audit.change_log (operation, table_schema, table_name, row_id, before, after)
    VALUES (TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME, coalesce(becomes, was) ->> 'id', was, becomes);
    RETURN NULL;
END
$$;

-- A line that no change has caused would be a forgery. A trigger that was fired by another trigger stands at depth 2.
CREATE FUNCTION audit.refuse_forgery() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION 'audit.change_log is written by triggers alone' USING ERRCODE = '42501';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER change_log_by_triggers_alone BEFORE INSERT ON audit.change_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_forgery();
ALTER TABLE audit.change_log ENABLE ALWAYS TRIGGER change_log_by_triggers_alone;

-- Watches a table from now on. Also in a session in replica mode, which would otherwise leave no line.
CREATE FUNCTION audit.watch(watched regclass) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER recorded AFTER INSERT OR UPDATE OR DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION audit.record_change()', watched);
    EXECUTE format('CREATE TRIGGER truncation_recorded AFTER TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION audit.record_change()', watched);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER recorded', watched);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER truncation_recorded', watched);
END
$$;

SELECT audit.log_migration('audit', '0002', 'up');
