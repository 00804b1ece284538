-- The ventures, and what is noted about each. Whose notes a transaction may see, topology.toml says (rls.venture).

CREATE TABLE vh.ventures (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name       text NOT NULL UNIQUE CHECK (name <> ''),
    stage      text NOT NULL DEFAULT 'idea' CHECK (stage IN ('idea', 'validation', 'launch', 'scale', 'closed')),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE vh.ventures IS 'The ventures';

CREATE TABLE vh.venture_notes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    venture_id uuid NOT NULL REFERENCES vh.ventures (id),
    note       text NOT NULL CHECK (note <> ''),
    noted_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE vh.venture_notes IS 'What is noted about a venture, for its own people';
CREATE INDEX venture_notes_venture_id_idx ON vh.venture_notes (venture_id);

SELECT audit.watch('vh.ventures'), audit.watch('vh.venture_notes');
SELECT audit.log_migration('vh', '0001', 'up');
