DROP TABLE edits;
DROP TABLE item_tags;
DROP TABLE notes;
DROP TABLE items;
DROP FUNCTION note_counted();
