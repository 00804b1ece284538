CREATE TABLE measurements (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('weight_kg', 'pulse_per_minute', 'sleep_hours')),
    value       numeric NOT NULL CHECK (value > 0),
    measured_at timestamptz NOT NULL,
    UNIQUE (kind, measured_at)
);
COMMENT ON TABLE measurements IS 'Measurements; the kind says the unit';
