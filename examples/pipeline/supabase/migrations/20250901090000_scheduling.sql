-- Posts for later. The column may be empty: the release that runs now does not know it.
ALTER TABLE public.posts ADD COLUMN scheduled_for timestamptz;
COMMENT ON COLUMN public.posts.scheduled_for IS 'shown to the readers whom the flag scheduling is on for';
