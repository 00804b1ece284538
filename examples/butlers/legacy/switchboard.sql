-- What arrived, and whom it was handed to.
\ir common.sql
CREATE TYPE channel AS ENUM ('mail', 'phone', 'telegram');
CREATE TABLE messages (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel     channel NOT NULL,
    external_id text NOT NULL,
    payload     jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (channel, external_id)
);
CREATE TABLE routes (
    message_id bigint NOT NULL REFERENCES messages ON DELETE CASCADE,
    butler     text NOT NULL CHECK (butler ~ '^[a-z]+$'),
    tried_at   timestamptz[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (message_id, butler)
);
CREATE INDEX messages_payload ON messages USING gin (payload);
CREATE VIEW unrouted AS SELECT m.* FROM messages AS m WHERE NOT EXISTS (SELECT FROM routes AS r WHERE r.message_id = m.id);
INSERT INTO messages (channel, external_id, payload)
SELECT (ARRAY['mail', 'phone', 'telegram'])[1 + i % 3]::channel, 'x' || i, jsonb_build_object('text', 'message ' || i)
FROM generate_series(1, 3000) AS i;
INSERT INTO routes SELECT id, (ARRAY['general', 'health'])[1 + id % 2], ARRAY[received_at] FROM messages WHERE id % 5 > 0;
