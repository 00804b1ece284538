DROP TABLE audit.service_logs;
SELECT audit.log_migration('audit', '0003', 'down');
