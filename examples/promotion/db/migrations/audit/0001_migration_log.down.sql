-- RESTRICT everywhere: a dependant that is not known here stops the way back instead of vanishing with it.
DROP FUNCTION audit.log_migration(text, text, text);
DROP TABLE audit.migration_log;
