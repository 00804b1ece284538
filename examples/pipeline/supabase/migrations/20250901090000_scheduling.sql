-- Posts for later. The column may be empty: the release that runs now does not know it.
ALTER TABLE public.posts ADD COLUMN scheduled_for timestamptz;

-- What was brought here, when and by whom.
CREATE TABLE public.deployment_log (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deployed_at    timestamptz NOT NULL DEFAULT now(),
    environment    text        NOT NULL,
    run            text        NOT NULL,
    content_digest text        NOT NULL,
    operator       text        NOT NULL,
    version        text        NOT NULL,
    migration      text        NOT NULL
);
ALTER TABLE public.deployment_log ENABLE ROW LEVEL SECURITY;
