-- One of every kind of object, so that each can be changed.
CREATE SCHEMA app;
CREATE SCHEMA spare;
CREATE EXTENSION citext WITH SCHEMA app VERSION '1.5';
CREATE EXTENSION btree_gist WITH SCHEMA app;
CREATE TYPE app.status AS ENUM ('new', 'open', 'done');
CREATE TYPE app.place AS (street text, number int);
CREATE DOMAIN app.email AS text CONSTRAINT has_at CHECK (VALUE LIKE '%@%');
CREATE TYPE app.span AS RANGE (SUBTYPE = numeric);
CREATE COLLATION app.german (PROVIDER = icu, LOCALE = 'de-DE');
CREATE SEQUENCE app.numbers START 10 INCREMENT 5;
CREATE SEQUENCE app.loose;
CREATE FUNCTION app.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n * 2;
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE FUNCTION app.audit_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE FUNCTION app.status_rank(s app.status) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 $$;
CREATE PROCEDURE app.tidy(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN n := 1; END $$;
CREATE AGGREGATE app.total(int) (SFUNC = pg_catalog.int4pl, STYPE = int, INITCOND = '0');
CREATE AGGREGATE app.flow(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, MINITCOND = '0');
CREATE FUNCTION app.same(a app.place, b app.place) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
CREATE OPERATOR app.=== (FUNCTION = app.same, LEFTARG = app.place, RIGHTARG = app.place);
CREATE FUNCTION app.place_text(p app.place) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'x'::text $$;
CREATE CAST (app.place AS text) WITH FUNCTION app.place_text(app.place);
CREATE OPERATOR FAMILY app.extra USING btree;
CREATE OPERATOR CLASS app.backwards FOR TYPE int USING btree AS
    OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 btint4cmp(int, int);
CREATE TEXT SEARCH DICTIONARY app.words (TEMPLATE = simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION app.search (COPY = simple);
CREATE TEXT SEARCH PARSER app.splitter (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE app.simplest (LEXIZE = dsimple_lexize);
CREATE CONVERSION app.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TRUSTED LANGUAGE plother HANDLER plpgsql_call_handler INLINE plpgsql_inline_handler VALIDATOR plpgsql_validator;
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;

CREATE TABLE app.people (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    nick varchar(20),
    mail app.email,
    status app.status NOT NULL DEFAULT 'new',
    home app.place,
    age int CONSTRAINT adult CHECK (age > 17),
    doubled int GENERATED ALWAYS AS (age * 2) STORED,
    number int NOT NULL DEFAULT nextval('app.numbers'),
    born date DEFAULT current_date,
    login app.citext,
    CONSTRAINT one_name UNIQUE (name)
);
ALTER SEQUENCE app.numbers OWNED BY app.people.number;
CREATE INDEX people_status ON app.people (status) WHERE status = 'open';
CREATE INDEX people_lower ON app.people (lower(name)) INCLUDE (age);
CREATE TABLE app.notes (
    id serial PRIMARY KEY,
    person bigint REFERENCES app.people (id) ON DELETE CASCADE,
    body text,
    during tstzrange,
    CONSTRAINT once UNIQUE (body) DEFERRABLE,
    CONSTRAINT apart EXCLUDE USING gist (person WITH =, during WITH &&)
);
CREATE TABLE app.events (at timestamptz NOT NULL, what text DEFAULT 'x', n int) PARTITION BY RANGE (at);
CREATE TABLE app.events_1 PARTITION OF app.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE app.events_2 PARTITION OF app.events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE INDEX events_what ON app.events (what);
CREATE TABLE app.parent (a int CONSTRAINT sane CHECK (a > -9), b text DEFAULT 'p');
CREATE TABLE app.child (c int) INHERITS (app.parent);
CREATE TABLE app.typed OF app.place;
CREATE TABLE app.bystander (id int, a int, b int);
INSERT INTO app.people (name, nick, mail, age, status, home) VALUES ('Anna', 'a', 'a@b', 30, 'open', ('x', 1)), ('Ben', 'b', 'b@c', 40, 'new', NULL);
CREATE TYPE app.point AS (x int, y int);
CREATE TYPE app.addr AS (street text, number int);
CREATE FUNCTION app.from_addr(internal) RETURNS internal LANGUAGE internal IMMUTABLE AS 'textin';
CREATE TRANSFORM FOR app.addr LANGUAGE plother (FROM SQL WITH FUNCTION app.from_addr(internal));
CREATE TYPE app.ids AS (id int, a int);
CREATE TYPE app.grain;
CREATE FUNCTION app.grain_in(cstring) RETURNS app.grain LANGUAGE internal IMMUTABLE STRICT AS 'byteain';
CREATE FUNCTION app.grain_as_text(app.grain) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'byteaout';
CREATE FUNCTION app.grain_recv(internal) RETURNS app.grain LANGUAGE internal IMMUTABLE STRICT AS 'bytearecv';
CREATE TYPE app.grain (INPUT = app.grain_in, OUTPUT = app.grain_as_text, STORAGE = external);
CREATE TABLE app.points (p app.point, q app.point[]);
INSERT INTO app.points VALUES ((1, 2), ARRAY[(3, 4)::app.point]), (NULL, NULL), ((NULL, NULL), '{}');
CREATE VIEW app.grown AS SELECT id, name, status FROM app.people WHERE age > 20;
CREATE VIEW app.grown_names AS SELECT name FROM app.grown;
CREATE MATERIALIZED VIEW app.counts AS SELECT status, count(*), max(name) AS top FROM app.people GROUP BY status;
CREATE UNIQUE INDEX counts_status ON app.counts (status);
CREATE RULE quiet AS ON DELETE TO app.bystander DO INSTEAD NOTHING;
CREATE TRIGGER touched BEFORE UPDATE ON app.people FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE TRIGGER event_touched AFTER INSERT ON app.events FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION app.audit_ddl();
CREATE STATISTICS app.people_stats (dependencies) ON name, age FROM app.people;
ALTER TABLE app.people ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.people FOR SELECT TO drift_reader USING (name = current_user);
CREATE FOREIGN DATA WRAPPER hollow;
CREATE SERVER afar TYPE 'x' VERSION '1' FOREIGN DATA WRAPPER hollow OPTIONS (host 'a', port '1');
CREATE USER MAPPING FOR drift_reader SERVER afar OPTIONS ("user" 'a', password 'hidden');
CREATE FOREIGN TABLE app.remote (id int OPTIONS (column_name 'i'), t text) SERVER afar OPTIONS (table_name 'r');
CREATE PUBLICATION few FOR TABLE app.bystander (id, a) WHERE (id > 1);
CREATE SUBSCRIPTION from_afar CONNECTION 'host=nowhere' PUBLICATION theirs WITH (connect = false, slot_name = NONE);
COMMENT ON TABLE app.people IS 'Who there is.';
COMMENT ON COLUMN app.people.name IS 'As they say it.';
GRANT USAGE ON SCHEMA app TO drift_reader;
GRANT SELECT, INSERT ON app.people TO drift_reader;
GRANT UPDATE (nick) ON app.people TO drift_reader;
REVOKE EXECUTE ON FUNCTION app.twice(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.twice(int) TO drift_reader WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA spare GRANT SELECT ON TABLES TO drift_reader;
