-- What the services say of themselves; watched while they are ramped up.

CREATE TABLE audit.service_logs (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    logged_at timestamptz NOT NULL DEFAULT now(),
    service   text NOT NULL CHECK (service <> ''),
    level     text NOT NULL CHECK (level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR')),
    message   text NOT NULL,
    -- Of a statement that the server refused: the trail has no line of it, since its transaction is gone.
    sqlstate  text CHECK (sqlstate ~ '^[0-9A-Z]{5}$')
);
COMMENT ON TABLE audit.service_logs IS 'What the services say of themselves, and which of their statements were refused';
CREATE INDEX service_logs_logged_at_idx ON audit.service_logs (logged_at, level);

SELECT audit.log_migration('audit', '0003', 'up');
