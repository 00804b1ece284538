-- expect: each row secured = true
SELECT relname, relrowsecurity AS secured FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relname IN ('bot_config', 'posts', 'audit_log', 'deployment_log', 'incidents');

-- as: bot_app
-- expect: 2 rows
SELECT config_value -> 'autonomous_posting' FROM public.bot_config WHERE config_key = 'feature_flags';

-- as: bot_app
-- expect: error 42501 ~ 'permission denied for table bot_config'
UPDATE public.bot_config SET config_value = '{}';

-- A setting that is changed leaves a line.
-- expect: value = 'setting probe'
INSERT INTO public.bot_config (config_key, environment, config_value) VALUES ('probe', 'staging', '1');
SELECT event FROM public.audit_log ORDER BY id DESC LIMIT 1;
