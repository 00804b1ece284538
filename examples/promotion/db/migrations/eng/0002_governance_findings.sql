CREATE TABLE eng.governance_findings (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    directive_id uuid NOT NULL REFERENCES eng.strategic_directives_v2 (id),
    severity     text NOT NULL CHECK (severity IN ('low', 'medium', 'high')),
    finding      text NOT NULL CHECK (finding <> ''),
    found_at     timestamptz NOT NULL DEFAULT now(),
    resolved_at  timestamptz CHECK (resolved_at >= found_at)
);
COMMENT ON TABLE eng.governance_findings IS 'Where a directive is not followed';
CREATE INDEX governance_findings_open_idx ON eng.governance_findings (directive_id) WHERE resolved_at IS NULL;

SELECT audit.watch('eng.governance_findings');
SELECT audit.log_migration('eng', '0002', 'up');
