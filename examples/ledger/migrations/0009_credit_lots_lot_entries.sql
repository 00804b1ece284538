-- Credit lots and the entries that draw on them: double entry, append only, one tenant never sees another.

CREATE TABLE credit_lots (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    community_id uuid NOT NULL REFERENCES communities (id),
    source       text NOT NULL CHECK (source IN ('seed', 'purchase', 'grant', 'refund')),
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    status       text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'expired', 'depleted')),
    expires_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (id, community_id)
);
COMMENT ON TABLE credit_lots IS 'Credits given to a community, in millionths; append only but for the status';

CREATE TABLE lot_entries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lot_id          uuid NOT NULL,
    community_id    uuid NOT NULL,
    entry_type      text NOT NULL CHECK (entry_type IN ('debit', 'release', 'expiry')),
    amount_micro    bigint NOT NULL CHECK (amount_micro > 0),
    idempotency_key text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (community_id, idempotency_key),
    -- Both columns, so that an entry can never draw on another community's lot.
    FOREIGN KEY (lot_id, community_id) REFERENCES credit_lots (id, community_id)
);
COMMENT ON TABLE lot_entries IS 'What was drawn from a lot or given back; append only';
CREATE INDEX lot_entries_lot_id_idx ON lot_entries (lot_id);
CREATE INDEX credit_lots_community_id_idx ON credit_lots (community_id, expires_at) WHERE status = 'active';

-- security_invoker: without it the view reads with its owner's rights and shows every community to everybody.
CREATE VIEW lot_balances WITH (security_invoker = true) AS
SELECT lot.id AS lot_id,
       lot.community_id,
       lot.status,
       lot.amount_micro AS granted_micro,
       lot.amount_micro - COALESCE(SUM(CASE entry.entry_type WHEN 'release' THEN -entry.amount_micro
                                                             ELSE entry.amount_micro END), 0) AS balance_micro
FROM credit_lots AS lot
LEFT JOIN lot_entries AS entry ON entry.lot_id = lot.id
GROUP BY lot.id;
COMMENT ON VIEW lot_balances IS 'What is left of each lot';

-- Fires for each statement, not for each row: under RLS an UPDATE that finds no row would otherwise end as "UPDATE 0"
-- and look as if it had been allowed.
CREATE FUNCTION prevent_mutation() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% is append only: % is not allowed', TG_TABLE_NAME, TG_OP USING ERRCODE = 'P0001';
END
$$;

CREATE TRIGGER lot_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lot_entries
    FOR EACH STATEMENT EXECUTE FUNCTION prevent_mutation();
CREATE TRIGGER credit_lots_append_only BEFORE DELETE OR TRUNCATE ON credit_lots
    FOR EACH STATEMENT EXECUTE FUNCTION prevent_mutation();
-- Every column but the status.
CREATE TRIGGER credit_lots_columns_append_only
    BEFORE UPDATE OF id, community_id, source, amount_micro, expires_at, created_at ON credit_lots
    FOR EACH STATEMENT EXECUTE FUNCTION prevent_mutation();

CREATE FUNCTION enforce_lot_status() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.status <> 'active' AND NEW.status <> OLD.status THEN
        RAISE EXCEPTION 'lot % is %: its status is final', OLD.id, OLD.status USING ERRCODE = 'P0001';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER credit_lots_status BEFORE UPDATE OF status ON credit_lots
    FOR EACH ROW EXECUTE FUNCTION enforce_lot_status();

-- ALWAYS: a session in replica mode would otherwise pass them by.
ALTER TABLE lot_entries ENABLE ALWAYS TRIGGER lot_entries_append_only;
ALTER TABLE credit_lots ENABLE ALWAYS TRIGGER credit_lots_append_only;
ALTER TABLE credit_lots ENABLE ALWAYS TRIGGER credit_lots_columns_append_only;
ALTER TABLE credit_lots ENABLE ALWAYS TRIGGER credit_lots_status;

-- The one way in which the application changes a lot. No trigger is disabled for it, and its search_path is its own.
CREATE FUNCTION app.update_lot_status(lot uuid, new_status text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.credit_lots SET status = new_status
    WHERE id = lot AND community_id = app.current_community_id();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no lot % in this community', lot USING ERRCODE = 'P0002';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION app.update_lot_status(uuid, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION prevent_mutation(), enforce_lot_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.update_lot_status(uuid, text) TO arrakis_app;

ALTER TABLE credit_lots ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE lot_entries ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON credit_lots
    USING (community_id = app.current_community_id()) WITH CHECK (community_id = app.current_community_id());
CREATE POLICY tenant ON lot_entries
    USING (community_id = app.current_community_id()) WITH CHECK (community_id = app.current_community_id());

GRANT SELECT, INSERT ON credit_lots, lot_entries TO arrakis_app;
GRANT SELECT ON lot_balances TO arrakis_app;
