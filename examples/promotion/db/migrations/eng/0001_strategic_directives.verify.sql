-- A change leaves a line with what was and what is.
-- expect: value = 'draft to active'
INSERT INTO eng.strategic_directives_v2 (code, title) VALUES ('SD-VERIFY', 'Verify');
UPDATE eng.strategic_directives_v2 SET status = 'active' WHERE code = 'SD-VERIFY';
SELECT (before ->> 'status') || ' to ' || (after ->> 'status')
FROM audit.change_log WHERE operation = 'UPDATE' AND after ->> 'code' = 'SD-VERIFY';
