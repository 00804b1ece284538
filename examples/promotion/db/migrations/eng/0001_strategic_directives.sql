-- What engineering is to do, and what it asks of the product.

CREATE TABLE eng.strategic_directives_v2 (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    code         text NOT NULL UNIQUE CHECK (code ~ '^SD-[A-Z0-9-]+$'),
    title        text NOT NULL CHECK (title <> ''),
    status       text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'active', 'completed', 'archived')),
    priority     int NOT NULL DEFAULT 3 CHECK (priority BETWEEN 1 AND 5),
    -- Not in any view.
    confidential boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE eng.strategic_directives_v2 IS 'What engineering is to do';

CREATE TABLE eng.product_requirements (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    directive_id uuid NOT NULL REFERENCES eng.strategic_directives_v2 (id),
    title        text NOT NULL CHECK (title <> ''),
    done         boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE eng.product_requirements IS 'What a directive asks of the product';
CREATE INDEX product_requirements_directive_id_idx ON eng.product_requirements (directive_id);

SELECT audit.watch('eng.strategic_directives_v2'), audit.watch('eng.product_requirements');
SELECT audit.log_migration('eng', '0001', 'up');
