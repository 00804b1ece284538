ALTER TABLE memories DROP COLUMN forgotten_at;
