-- Runs are counted by minute.
-- expect: value = '2 of 3'
INSERT INTO vh.ventures (id, name) VALUES ('00000000-0000-4000-8000-00000000000c', 'verify');
INSERT INTO vh.ingest_runs (venture_id, status)
SELECT '00000000-0000-4000-8000-00000000000c', status FROM unnest(ARRAY['success', 'success', 'failed']) AS status;
SELECT success || ' of ' || success + failed FROM views.vh_ingest_summary WHERE minute = date_trunc('minute', now());
