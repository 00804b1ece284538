-- A line is not written by hand, not even by the owner ...
-- expect: error 42501 ~ 'written by triggers alone'
INSERT INTO audit.change_log (operation, table_schema, table_name) VALUES ('DELETE', 'eng', 'verify');

-- ... but by what happens to a table that is watched: three changes and a TRUNCATE are four lines.
-- expect: value = 'INSERT UPDATE DELETE TRUNCATE'
CREATE TABLE audit.verify (id int, note text);
SELECT audit.watch('audit.verify');
INSERT INTO audit.verify VALUES (1, 'a');
UPDATE audit.verify SET note = 'b';
DELETE FROM audit.verify;
TRUNCATE audit.verify;
SELECT string_agg(operation, ' ' ORDER BY id) FROM audit.change_log WHERE table_name = 'verify';
