-- What was told is found by its words.
-- expect: 1 row
INSERT INTO memories (content) VALUES ('Prefers tea to coffee');
SELECT id FROM memories WHERE words @@ to_tsquery('simple', 'tea & coffee');
