-- Notes, in which one finds again what was meant to be kept.
\ir common.sql
CREATE SEQUENCE note_number START 1000;
CREATE TABLE notes (
    number  bigint PRIMARY KEY DEFAULT nextval('note_number'),
    title   text NOT NULL,
    body    text NOT NULL,
    labels  text[] NOT NULL DEFAULT '{}',
    words   tsvector GENERATED ALWAYS AS (to_tsvector('simple', title || ' ' || body)) STORED,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX notes_words ON notes USING gin (words);
CREATE INDEX notes_labels ON notes USING gin (labels);
CREATE TRIGGER notes_touch BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch();
INSERT INTO notes (title, body, labels)
SELECT 'note ' || i, repeat('words of the note ', 1 + i % 30), ARRAY['l' || i % 7, 'l' || i % 11] FROM generate_series(1, 2000) AS i;
