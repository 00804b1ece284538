-- What payment providers tell, each event once; and the payments, whose status only moves forward.

CREATE TABLE webhook_events (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    community_id uuid NOT NULL REFERENCES communities (id),
    provider     text NOT NULL CHECK (provider <> ''),
    event_id     text NOT NULL CHECK (event_id <> ''),
    payload      jsonb NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    -- A provider sends an event again until it is answered: the second is refused here.
    UNIQUE (provider, event_id)
);
COMMENT ON TABLE webhook_events IS 'Webhook deliveries, deduplicated; append only';

CREATE TABLE crypto_payments (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    community_id uuid NOT NULL REFERENCES communities (id),
    provider     text NOT NULL CHECK (provider <> ''),
    payment_id   text NOT NULL CHECK (payment_id <> ''),
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    status       text NOT NULL DEFAULT 'waiting'
                 CHECK (status IN ('waiting', 'confirming', 'confirmed', 'finished', 'failed', 'expired', 'refunded')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (provider, payment_id)
);
COMMENT ON TABLE crypto_payments IS 'Payments; the status never goes back';
CREATE INDEX crypto_payments_open_idx ON crypto_payments (community_id, created_at)
    WHERE status IN ('waiting', 'confirming', 'confirmed');

-- A webhook that comes late must not take a finished payment back to "confirming".
CREATE FUNCTION enforce_payment_status_monotonicity() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ranks constant jsonb := '{"waiting": 0, "confirming": 1, "confirmed": 2, "finished": 3,
                              "failed": 3, "expired": 3, "refunded": 4}';
BEGIN
    IF NEW.status <> OLD.status AND (ranks ->> NEW.status)::int <= (ranks ->> OLD.status)::int THEN
        RAISE EXCEPTION 'payment % cannot go from % to %', OLD.payment_id, OLD.status, NEW.status
            USING ERRCODE = 'P0001';
    END IF;
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER crypto_payments_status BEFORE UPDATE ON crypto_payments
    FOR EACH ROW EXECUTE FUNCTION enforce_payment_status_monotonicity();
CREATE TRIGGER crypto_payments_no_delete BEFORE DELETE OR TRUNCATE ON crypto_payments
    FOR EACH STATEMENT EXECUTE FUNCTION prevent_mutation();
CREATE TRIGGER webhook_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON webhook_events
    FOR EACH STATEMENT EXECUTE FUNCTION prevent_mutation();
ALTER TABLE crypto_payments ENABLE ALWAYS TRIGGER crypto_payments_status;
ALTER TABLE crypto_payments ENABLE ALWAYS TRIGGER crypto_payments_no_delete;
ALTER TABLE webhook_events ENABLE ALWAYS TRIGGER webhook_events_append_only;
REVOKE ALL ON FUNCTION enforce_payment_status_monotonicity() FROM PUBLIC;

ALTER TABLE webhook_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE crypto_payments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON webhook_events
    USING (community_id = app.current_community_id()) WITH CHECK (community_id = app.current_community_id());
CREATE POLICY tenant ON crypto_payments
    USING (community_id = app.current_community_id()) WITH CHECK (community_id = app.current_community_id());

GRANT SELECT, INSERT ON webhook_events, crypto_payments TO arrakis_app;
GRANT UPDATE (status) ON crypto_payments TO arrakis_app;
