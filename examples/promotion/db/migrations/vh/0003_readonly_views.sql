-- What others may know of the ventures: counts, and no notes.

CREATE VIEW views.vh_venture_summary WITH (security_barrier = true) AS
SELECT venture.stage, count(DISTINCT venture.id) AS ventures, count(note.id) AS notes
FROM vh.ventures AS venture
LEFT JOIN vh.venture_notes AS note ON note.venture_id = venture.id
GROUP BY venture.stage;
COMMENT ON VIEW views.vh_venture_summary IS 'Ventures by stage';

CREATE VIEW views.vh_ingest_summary WITH (security_barrier = true) AS
SELECT date_trunc('minute', created_at) AS minute,
       count(*) FILTER (WHERE status = 'success') AS success,
       count(*) FILTER (WHERE status = 'failed') AS failed
FROM vh.ingest_runs
GROUP BY date_trunc('minute', created_at);
COMMENT ON VIEW views.vh_ingest_summary IS 'Ingest runs by minute';

SELECT audit.log_migration('vh', '0003', 'up');
