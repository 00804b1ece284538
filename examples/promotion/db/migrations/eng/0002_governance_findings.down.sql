DROP TABLE eng.governance_findings;
SELECT audit.log_migration('eng', '0002', 'down');
