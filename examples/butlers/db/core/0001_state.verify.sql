-- A row says when it was written last, whatever the client says.
-- expect: value = 't'
INSERT INTO state (key, value, updated_at) VALUES ('verify', '1', '2000-01-01');
UPDATE state SET value = '2', updated_at = '2000-01-01' WHERE key = 'verify';
SELECT updated_at = now() FROM state WHERE key = 'verify';
