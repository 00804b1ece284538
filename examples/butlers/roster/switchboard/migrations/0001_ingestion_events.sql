-- What arrived, each once, and which butler it was handed to.

CREATE TABLE ingestion_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel     text NOT NULL CHECK (channel IN ('mail', 'phone', 'telegram')),
    external_id text NOT NULL,
    payload     jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    -- Senders send again until they are answered: the second is refused here.
    UNIQUE (channel, external_id)
);
COMMENT ON TABLE ingestion_events IS 'What arrived';

CREATE TABLE routings (
    event_id  bigint PRIMARY KEY REFERENCES ingestion_events (id),
    butler    text NOT NULL CHECK (butler ~ '^[a-z][a-z0-9_]{0,39}$'),
    routed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE routings IS 'Which butler it was for';
CREATE INDEX routings_butler_idx ON routings (butler, routed_at);
