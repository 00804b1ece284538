-- A profile as it was kept until now: one SQLite file.
PRAGMA journal_mode = wal;

CREATE TABLE items (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    title      TEXT NOT NULL,
    body       TEXT NOT NULL DEFAULT '',
    score      REAL,
    pinned     BOOLEAN NOT NULL DEFAULT 0,
    meta       JSON NOT NULL DEFAULT '{}',
    note_count INTEGER NOT NULL DEFAULT 0,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL
);

CREATE TABLE notes (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    item_id    INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    author     TEXT NOT NULL,
    body       TEXT NOT NULL,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL
);
CREATE INDEX notes_item_id_idx ON notes (item_id);

CREATE TABLE item_tags (
    item_id INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    tag     TEXT NOT NULL,
    weight  REAL NOT NULL DEFAULT 1.0,
    PRIMARY KEY (item_id, tag)
);

-- Each accepted write with the key that its client gave it: a write that is sent twice happens once.
CREATE TABLE edits (
    key     TEXT NOT NULL PRIMARY KEY,
    kind    TEXT NOT NULL,
    item_id INTEGER NOT NULL,
    note_id INTEGER,
    value   TEXT NOT NULL,
    at      DATETIME NOT NULL
);

CREATE TRIGGER notes_counted AFTER INSERT ON notes BEGIN
    UPDATE items SET note_count = note_count + 1 WHERE id = new.item_id;
END;
CREATE TRIGGER notes_uncounted AFTER DELETE ON notes BEGIN
    UPDATE items SET note_count = note_count - 1 WHERE id = old.item_id;
END;

-- The search has its own tables beside this one (items_fts_data and others): they are made of the items, and not moved.
CREATE VIRTUAL TABLE items_fts USING fts5 (
    title, body, content = 'items', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 0'
);
CREATE TRIGGER items_found AFTER INSERT ON items BEGIN
    INSERT INTO items_fts (rowid, title, body) VALUES (new.id, new.title, new.body);
END;
CREATE TRIGGER items_unfound AFTER DELETE ON items BEGIN
    INSERT INTO items_fts (items_fts, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
END;
CREATE TRIGGER items_refound AFTER UPDATE OF title, body ON items BEGIN
    INSERT INTO items_fts (items_fts, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
    INSERT INTO items_fts (rowid, title, body) VALUES (new.id, new.title, new.body);
END;
