DROP TABLE routings;
DROP TABLE ingestion_events;
