ALTER TABLE public.posts DROP COLUMN scheduled_for;
