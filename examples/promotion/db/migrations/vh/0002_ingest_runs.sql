-- Each time that a venture's data was taken in: what the ramp of the ingest service is judged by.

CREATE TABLE vh.ingest_runs (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    venture_id  uuid NOT NULL REFERENCES vh.ventures (id),
    status      text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'success', 'failed')),
    row_count   bigint CHECK (row_count >= 0),
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz CHECK (finished_at >= created_at)
);
COMMENT ON TABLE vh.ingest_runs IS 'Each time that data was taken in';
CREATE INDEX ingest_runs_created_at_idx ON vh.ingest_runs (created_at, status);
CREATE INDEX ingest_runs_venture_id_idx ON vh.ingest_runs (venture_id);

SELECT audit.watch('vh.ingest_runs');
SELECT audit.log_migration('vh', '0002', 'up');
