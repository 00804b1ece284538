DROP TABLE public.deployment_log;
ALTER TABLE public.posts DROP COLUMN scheduled_for;
