-- What a butler does by itself, and each time that it did.

CREATE TABLE tasks (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name <> ''),
    schedule    text NOT NULL CHECK (array_length(regexp_split_to_array(schedule, ' +'), 1) = 5),
    prompt      text NOT NULL,
    enabled     boolean NOT NULL DEFAULT true,
    next_run_at timestamptz
);
COMMENT ON TABLE tasks IS 'What the butler does by itself; the schedule has cron''s five fields';
CREATE INDEX tasks_due_idx ON tasks (next_run_at) WHERE enabled;

CREATE TABLE sessions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id     bigint REFERENCES tasks (id) ON DELETE SET NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz CHECK (finished_at >= started_at),
    outcome     text CHECK (outcome IN ('done', 'failed', 'cancelled')),
    CHECK ((finished_at IS NULL) = (outcome IS NULL))
);
COMMENT ON TABLE sessions IS 'Each time that the butler was at work';
CREATE INDEX sessions_task_id_idx ON sessions (task_id);
