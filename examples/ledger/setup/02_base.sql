-- The schema as migration 0007 left it, as far as the ledger needs it: the communities whose money is kept.
CREATE TABLE communities (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name       text NOT NULL UNIQUE CHECK (name <> ''),
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO communities (id, name) VALUES
    ('00000000-0000-4000-8000-00000000000a', 'sietch-tabr'),
    ('00000000-0000-4000-8000-00000000000b', 'arrakeen');

GRANT SELECT ON communities TO arrakis_app;
