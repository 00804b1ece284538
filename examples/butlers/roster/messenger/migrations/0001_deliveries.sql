CREATE TABLE deliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Asked twice, sent once.
    idempotency_key text NOT NULL UNIQUE,
    channel         text NOT NULL CHECK (channel IN ('mail', 'phone', 'telegram')),
    address         text NOT NULL CHECK (address <> ''),
    body            text NOT NULL,
    requested_at    timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz
);
COMMENT ON TABLE deliveries IS 'What was to be sent, and when it was';
CREATE INDEX deliveries_open_idx ON deliveries (requested_at) WHERE delivered_at IS NULL;
