-- The same message is taken once.
-- expect: error 23505 ~ 'ingestion_events_channel_external_id_key'
INSERT INTO ingestion_events (channel, external_id, payload)
SELECT 'mail', 'verify', '{}' FROM generate_series(1, 2);
