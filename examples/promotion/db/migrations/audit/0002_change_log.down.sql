-- What was recorded is lost with the table: the backup before the promotion has none of it.
DROP FUNCTION audit.watch(regclass);
DROP TRIGGER change_log_by_triggers_alone ON audit.change_log;
DROP FUNCTION audit.refuse_forgery();
DROP FUNCTION audit.record_change();
DROP TABLE audit.change_log;
SELECT audit.log_migration('audit', '0002', 'down');
