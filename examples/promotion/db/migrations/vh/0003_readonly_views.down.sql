DROP VIEW views.vh_ingest_summary;
DROP VIEW views.vh_venture_summary;
SELECT audit.log_migration('vh', '0003', 'down');
