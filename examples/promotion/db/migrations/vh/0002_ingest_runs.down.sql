DROP TABLE vh.ingest_runs;
SELECT audit.log_migration('vh', '0002', 'down');
