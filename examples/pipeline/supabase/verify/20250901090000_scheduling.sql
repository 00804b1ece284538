-- The release before writes without knowing the column.
-- as: bot_app
-- expect: 1 row
INSERT INTO public.posts (environment, body) VALUES ('staging', 'probe') RETURNING id;

-- as: bot_app
-- expect: value = 1
INSERT INTO public.posts (environment, body, scheduled_for) VALUES ('staging', 'probe', now() + interval '1 day');
SELECT count(*) FROM public.posts WHERE scheduled_for > now() AND body = 'probe';
