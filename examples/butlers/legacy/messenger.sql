-- What was to be sent, and when it was.
\ir common.sql
CREATE TYPE outcome AS (code integer, said text);
CREATE TABLE deliveries (
    id              bigserial PRIMARY KEY,
    idempotency_key text NOT NULL UNIQUE,
    address         text NOT NULL,
    body            text NOT NULL,
    outcomes        outcome[] NOT NULL DEFAULT '{}',
    requested_at    timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz
);
CREATE INDEX deliveries_open ON deliveries (requested_at) WHERE delivered_at IS NULL;
CREATE TABLE delivery_events (
    delivery_id bigint NOT NULL REFERENCES deliveries ON DELETE CASCADE,
    number      integer NOT NULL,
    what        text NOT NULL,
    PRIMARY KEY (delivery_id, number)
);
CREATE FUNCTION note_delivery() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO delivery_events
    SELECT NEW.id, 1 + count(*), CASE WHEN NEW.delivered_at IS NULL THEN 'asked' ELSE 'delivered' END
    FROM delivery_events WHERE delivery_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER deliveries_noted AFTER INSERT OR UPDATE OF delivered_at ON deliveries FOR EACH ROW EXECUTE FUNCTION note_delivery();
INSERT INTO deliveries (idempotency_key, address, body, outcomes)
SELECT 'k' || i, 'p' || i || '@example.com', 'message ' || i, ARRAY[ROW(250, 'ok')::outcome] FROM generate_series(1, 1500) AS i;
UPDATE deliveries SET delivered_at = now() WHERE id % 3 = 0;
