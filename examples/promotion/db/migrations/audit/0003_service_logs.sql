-- What the services say of themselves; watched while they are ramped up.

CREATE TABLE audit.service_logs (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    logged_at timestamptz NOT NULL DEFAULT now(),
    service   text NOT NULL CHECK (service <> ''),
    level     text NOT NULL CHECK (level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR')),
    message   text NOT NULL
);
COMMENT ON TABLE audit.service_logs IS 'What the services say of themselves';
CREATE INDEX service_logs_logged_at_idx ON audit.service_logs (logged_at, level);

SELECT audit.log_migration('audit', '0003', 'up');
