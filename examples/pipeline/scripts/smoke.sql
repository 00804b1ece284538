-- Does the database answer, and is what the applications need there? `psql -f` ends with an error if not, and so do
-- `pgrunbook review --smoke` and the runbooks.
DO $$
BEGIN
    ASSERT NOT pg_is_in_recovery(), 'this is a standby';
    ASSERT (SELECT count(*) = 2 FROM public.bot_config WHERE config_key = 'schema_version' AND config_value ? 'version'),
        'bot_config has no schema_version of each environment';
    ASSERT (SELECT bool_and(jsonb_typeof(config_value) = 'object') FROM public.bot_config WHERE config_key = 'feature_flags'),
        'bot_config has no feature_flags';
    ASSERT has_table_privilege('bot_app', 'public.posts', 'SELECT, INSERT'), 'the applications cannot write posts';
    ASSERT NOT has_table_privilege('anon', 'public.posts', 'SELECT'), 'everybody on the Internet can read posts';
END $$;

-- expect: value = 'posts'
SELECT relname FROM pg_class WHERE oid = 'public.posts'::regclass;
