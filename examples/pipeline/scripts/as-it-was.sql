-- An environment as `supabase db push` has left it at 1.0.0, for throwaway servers.
\ir ../supabase/migrations/20250811000000_baseline.sql
CREATE SCHEMA supabase_migrations;
CREATE TABLE supabase_migrations.schema_migrations (version text PRIMARY KEY, statements text[], name text);
INSERT INTO supabase_migrations.schema_migrations (version, name) VALUES ('20250811000000', 'baseline');
