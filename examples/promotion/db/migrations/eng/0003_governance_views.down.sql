DROP VIEW views.eng_directive_progress;
DROP VIEW views.eng_governance_summary;
SELECT audit.log_migration('eng', '0003', 'down');
