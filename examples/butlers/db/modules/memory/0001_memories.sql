CREATE TABLE memories (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content    text NOT NULL CHECK (content <> ''),
    words      tsvector GENERATED ALWAYS AS (to_tsvector('simple', content)) STORED,
    learned_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE memories IS 'What the butler was told and shall find again';
CREATE INDEX memories_words_idx ON memories USING gin (words);
