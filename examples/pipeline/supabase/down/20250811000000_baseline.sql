DROP TABLE public.bot_config, public.posts, public.audit_log, public.deployment_log, public.incidents;
DROP FUNCTION public.log_setting();
