ALTER TABLE eng.strategic_directives_v2 NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
DROP POLICY views_read ON eng.strategic_directives_v2;
DROP POLICY eng_changes ON eng.strategic_directives_v2;
DROP POLICY eng_adds ON eng.strategic_directives_v2;
DROP POLICY eng_reads ON eng.strategic_directives_v2;
SELECT audit.log_migration('eng', '0004', 'down');
