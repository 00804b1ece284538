CREATE TABLE encounters (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    contact_id uuid NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('met', 'called', 'wrote')),
    note       text NOT NULL DEFAULT '',
    at         timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE encounters IS 'When a contact was last heard of';
CREATE INDEX encounters_contact_id_idx ON encounters (contact_id, at DESC);

CREATE VIEW last_encounters WITH (security_invoker = true) AS
SELECT contact_id, max(at) AS at FROM encounters GROUP BY contact_id;
COMMENT ON VIEW last_encounters IS 'The newest encounter with each contact';
