-- Settings with one row for each key and environment; flags and the schema version stand here.
CREATE TABLE public.bot_config (
    config_key   text        NOT NULL,
    environment  text        NOT NULL CHECK (environment IN ('staging', 'production')),
    config_value jsonb       NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (config_key, environment)
);

CREATE TABLE public.posts (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment text        NOT NULL,
    body        text        NOT NULL,
    posted_at   timestamptz NOT NULL DEFAULT now()
);

-- Who changed which setting, and when: a kill switch that was thrown leaves a line.
CREATE TABLE public.audit_log (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    logged_at   timestamptz NOT NULL DEFAULT now(),
    environment text        NOT NULL,
    event       text        NOT NULL,
    actor       text        NOT NULL DEFAULT session_user,
    detail      jsonb       NOT NULL DEFAULT '{}'
);

-- What was brought here and taken back, when and by whom: one line with each deployment, in its transaction.
CREATE TABLE public.deployment_log (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deployed_at    timestamptz NOT NULL,
    action         text        NOT NULL,
    environment    text        NOT NULL,
    run            text        NOT NULL,
    step           text        NOT NULL,
    content_digest text        NOT NULL,
    operator       text        NOT NULL,
    version        text,
    migration      text
);

-- What is open here stops a promotion.
CREATE TABLE public.incidents (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment text        NOT NULL,
    title       text        NOT NULL,
    opened_at   timestamptz NOT NULL DEFAULT now(),
    closed_at   timestamptz
);

CREATE FUNCTION public.log_setting() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    NEW.updated_at := now();
    INSERT INTO public.audit_log (environment, event, detail)
    VALUES (NEW.environment, 'setting ' || NEW.config_key,
            jsonb_build_object('before', CASE TG_OP WHEN 'UPDATE' THEN OLD.config_value END, 'after', NEW.config_value));
    RETURN NEW;
END $$;

CREATE TRIGGER log_setting BEFORE INSERT OR UPDATE ON public.bot_config
    FOR EACH ROW EXECUTE FUNCTION public.log_setting();

-- Supabase serves `public` to `anon` over HTTP: without a policy nobody but the owner sees a row.
ALTER TABLE public.bot_config ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.posts ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.deployment_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.incidents ENABLE ROW LEVEL SECURITY;

GRANT SELECT ON public.bot_config TO bot_app;
GRANT SELECT, INSERT ON public.posts TO bot_app;
CREATE POLICY bot_reads ON public.bot_config FOR SELECT TO bot_app USING (true);
CREATE POLICY bot_reads ON public.posts FOR SELECT TO bot_app USING (true);
CREATE POLICY bot_posts ON public.posts FOR INSERT TO bot_app WITH CHECK (true);

INSERT INTO public.bot_config (config_key, environment, config_value)
SELECT setting.key, environment, setting.value
FROM unnest(ARRAY['staging', 'production']) AS environment
CROSS JOIN (VALUES
    ('feature_flags', jsonb '{"autonomous_posting": true}'),
    ('schema_version', jsonb '{"version": "1.0.0", "migration": "20250811000000_baseline", "timestamp": "2025-08-11T00:00:00.000Z"}')
) AS setting (key, value);
