-- The words of an item, as SQLite's search takes them apart: letters and digits, everything else between.
-- With a collation of its own: what a letter is must not depend on how the database was made.
CREATE INDEX IF NOT EXISTS items_words_idx ON items
    USING gin (to_tsvector('simple', regexp_replace(lower((title || ' ' || body) COLLATE "und-x-icu"), '[^[:alnum:]]+', ' ', 'g')));
