-- The beginning of a word finds it, whatever stands around it.
-- expect: value = 1
INSERT INTO items (id, title, created_at, updated_at) VALUES (-1, 'ein (ÜBER-Wort)', now(), now());
SELECT count(*) FROM items
WHERE to_tsvector('simple', regexp_replace(lower((title || ' ' || body) COLLATE "und-x-icu"), '[^[:alnum:]]+', ' ', 'g')) @@ to_tsquery('simple', 'über:*');
