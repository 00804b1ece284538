-- Who may do what with a directive: eng_app reads all, and changes what is not archived; nobody deletes one. The owner, with
-- whose rights the views run, is bound too (FORCE) and reads only what is not confidential: a view that forgets the
-- condition shows nothing more.

ALTER TABLE eng.strategic_directives_v2 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY eng_reads ON eng.strategic_directives_v2 FOR SELECT TO eng_app USING (true);
CREATE POLICY eng_adds ON eng.strategic_directives_v2 FOR INSERT TO eng_app WITH CHECK (status <> 'archived');
CREATE POLICY eng_changes ON eng.strategic_directives_v2 FOR UPDATE TO eng_app
    USING (status <> 'archived') WITH CHECK (true);
-- The role that runs this migration.
CREATE POLICY views_read ON eng.strategic_directives_v2 FOR SELECT TO CURRENT_USER USING (NOT confidential);

SELECT audit.log_migration('eng', '0004', 'up');
