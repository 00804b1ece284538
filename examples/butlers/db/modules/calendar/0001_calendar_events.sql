CREATE TABLE calendar_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- As the calendar that it comes from names it: fetched again, it is the same event.
    external_id text NOT NULL UNIQUE,
    title       text NOT NULL,
    starts_at   timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL CHECK (ends_at >= starts_at)
);
COMMENT ON TABLE calendar_events IS 'Events of the calendars that the butler watches';
CREATE INDEX calendar_events_starts_at_idx ON calendar_events (starts_at);
