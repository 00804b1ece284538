-- A memory that is no longer true is kept, and not found.
ALTER TABLE memories ADD COLUMN forgotten_at timestamptz;
