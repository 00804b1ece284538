-- A note counts.
-- expect: value = 1
INSERT INTO items (id, title, created_at, updated_at) VALUES (-1, 'verify', now(), now());
INSERT INTO notes (item_id, author, body, created_at, updated_at) VALUES (-1, 'verify', 'verify', now(), now());
SELECT note_count FROM items WHERE id = -1;

-- A note belongs to an item of its own source.
-- expect: error 23503
INSERT INTO notes (item_id, author, body, created_at, updated_at) VALUES (-1, 'verify', 'verify', now(), now());

-- A write happens once.
-- expect: error 23505
INSERT INTO edits (key, kind, item_id, value, at)
SELECT 'verify', 'meta', -1, '{}', now() FROM generate_series(1, 2);
