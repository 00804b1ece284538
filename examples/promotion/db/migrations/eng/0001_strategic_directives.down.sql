DROP TABLE eng.product_requirements;
DROP TABLE eng.strategic_directives_v2;
SELECT audit.log_migration('eng', '0001', 'down');
