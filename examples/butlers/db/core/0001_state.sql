-- What a butler remembers between two sessions. Applied in each butler's schema: names are not qualified.

CREATE FUNCTION touch() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TABLE state (
    key        text PRIMARY KEY CHECK (key <> ''),
    value      jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE state IS 'What the butler remembers';
CREATE TRIGGER state_touch BEFORE UPDATE ON state FOR EACH ROW EXECUTE FUNCTION touch();
