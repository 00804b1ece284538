-- schema app2
CREATE SCHEMA app2;
-- extension hstore
CREATE EXTENSION hstore WITH SCHEMA app;
-- < extension version citext
ALTER EXTENSION citext UPDATE TO '1.6';
-- extension schema btree_gist
ALTER EXTENSION btree_gist SET SCHEMA spare;
-- enum app.status
ALTER TYPE app.status ADD VALUE 'stale' AFTER 'open';
-- enum app.colour
CREATE TYPE app.colour AS ENUM ('red');
-- domain app.short
CREATE DOMAIN app.short AS varchar(3) COLLATE "C" NOT NULL DEFAULT 'x' CHECK (VALUE <> '');
-- default app.email
ALTER DOMAIN app.email SET DEFAULT 'a@b';
-- not null app.email
-- constraint has_at on domain app.email
ALTER DOMAIN app.email SET NOT NULL; ALTER DOMAIN app.email DROP CONSTRAINT has_at;
-- constraint has_dot on domain app.email
ALTER DOMAIN app.email ADD CONSTRAINT has_dot CHECK (VALUE LIKE '%.%') NOT VALID;
-- type app.pair
CREATE TYPE app.pair AS (a int, b text COLLATE "C");
-- type app.place
ALTER TYPE app.place ADD ATTRIBUTE zip text CASCADE;
-- type app.point
ALTER TABLE app.points ALTER p TYPE text USING p::text, ALTER q TYPE text USING q::text; DROP TYPE app.point; CREATE TYPE app.point AS (x bigint, y int); ALTER TABLE app.points ALTER p TYPE app.point USING p::app.point, ALTER q TYPE app.point[] USING q::app.point[];
-- domain app.email
ALTER TABLE app.people ALTER mail TYPE text; DROP DOMAIN app.email; CREATE DOMAIN app.email AS varchar(50) CONSTRAINT has_at CHECK (VALUE LIKE '%@%'); ALTER TABLE app.people ALTER mail TYPE app.email;
-- type app.hours
CREATE TYPE app.hours AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi);
-- collation app.german
DROP COLLATION app.german; CREATE COLLATION app.german (PROVIDER = icu, LOCALE = 'de-AT', DETERMINISTIC = false);
-- collation app.posix
CREATE COLLATION app.posix (LOCALE = 'C');
-- sequence app.numbers
ALTER SEQUENCE app.numbers AS smallint INCREMENT 7 MAXVALUE 1000 CYCLE CACHE 3;
-- sequence app.more
CREATE SEQUENCE app.more AS int;
-- owned by app.loose
ALTER SEQUENCE app.loose OWNED BY app.bystander.id;
-- function app.twice(n integer)
CREATE OR REPLACE FUNCTION app.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n + n;
-- function app.status_rank(s app.status)
DROP FUNCTION app.status_rank; CREATE FUNCTION app.status_rank(s app.status) RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = app AS $$ SELECT 2::bigint $$;
-- function app.later(a integer, b integer)
CREATE FUNCTION app.later(a int, b int DEFAULT 2) RETURNS TABLE (x int) LANGUAGE plpgsql COST 7 ROWS 3 PARALLEL SAFE AS $$ BEGIN RETURN; END $$;
-- procedure app.tidy(INOUT n integer)
CREATE OR REPLACE PROCEDURE app.tidy(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN n := 2; END $$;
-- aggregate app.total(integer)
CREATE OR REPLACE AGGREGATE app.total(int) (SFUNC = pg_catalog.int4pl, STYPE = int, INITCOND = '1', COMBINEFUNC = int4pl, PARALLEL = SAFE);
-- aggregate app.everyone(*)
CREATE AGGREGATE app.everyone(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0');
-- operator app.=== (app.place, app.place)
ALTER OPERATOR app.=== (app.place, app.place) SET (RESTRICT = eqsel);
-- operator app.!! (NONE, integer)
CREATE OPERATOR app.!! (FUNCTION = app.twice, RIGHTARG = int);
-- operator family app.more USING hash
CREATE OPERATOR FAMILY app.more USING hash;
-- family member app.extra USING btree: operator 1 (integer, bigint)
ALTER OPERATOR FAMILY app.extra USING btree ADD OPERATOR 1 < (int4, int8), FUNCTION 1 btint48cmp(int4, int8);
-- operator class app.backwards USING btree
DROP OPERATOR CLASS app.backwards USING btree; CREATE OPERATOR CLASS app.backwards FOR TYPE int USING btree FAMILY app.extra AS OPERATOR 1 >, FUNCTION 1 btint4cmp(int, int);
-- cast (app.place AS text)
DROP CAST (app.place AS text); CREATE CAST (app.place AS text) WITH FUNCTION app.place_text(app.place) AS ASSIGNMENT;
-- cast (app.status AS integer)
CREATE CAST (app.status AS int) WITH FUNCTION app.status_rank(app.status) AS ASSIGNMENT;
-- transform FOR app.place LANGUAGE plother
CREATE FUNCTION app.from_place(internal) RETURNS internal LANGUAGE internal IMMUTABLE AS 'textin'; CREATE TRANSFORM FOR app.place LANGUAGE plother (FROM SQL WITH FUNCTION app.from_place(internal));
-- language plthird
CREATE TRUSTED LANGUAGE plthird HANDLER plpgsql_call_handler;
-- access method heap3
CREATE ACCESS METHOD heap3 TYPE TABLE HANDLER heap_tableam_handler;
-- conversion app.latin
DROP CONVERSION app.latin; CREATE CONVERSION app.latin FOR 'LATIN2' TO 'UTF8' FROM iso8859_to_utf8;
-- base type app.tiny
-- shell type app.tiny
CREATE TYPE app.tiny; CREATE FUNCTION app.tiny_in(cstring) RETURNS app.tiny LANGUAGE internal IMMUTABLE STRICT AS 'int4in'; CREATE FUNCTION app.tiny_out(app.tiny) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out'; CREATE TYPE app.tiny (INPUT = app.tiny_in, OUTPUT = app.tiny_out, INTERNALLENGTH = 4, PASSEDBYVALUE, ALIGNMENT = int4);
-- text search parser app.parser
CREATE TEXT SEARCH PARSER app.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
-- text search template app.template
CREATE TEXT SEARCH TEMPLATE app.template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
-- text search dictionary app.words
ALTER TEXT SEARCH DICTIONARY app.words (STOPWORDS = german);
-- text search configuration app.find
CREATE TEXT SEARCH CONFIGURATION app.find (COPY = simple);
-- text search mapping app.search for word
ALTER TEXT SEARCH CONFIGURATION app.search ALTER MAPPING FOR word WITH app.words, simple;
-- text search mapping app.search for email
ALTER TEXT SEARCH CONFIGURATION app.search DROP MAPPING FOR email;
-- foreign-data wrapper hollow
ALTER FOREIGN DATA WRAPPER hollow VALIDATOR postgresql_fdw_validator;
-- option foreign-data wrapper hollow: debug
ALTER FOREIGN DATA WRAPPER hollow OPTIONS (ADD debug 'on');
-- server near
CREATE SERVER near FOREIGN DATA WRAPPER hollow;
-- server version afar
ALTER SERVER afar VERSION '2';
-- option server afar: host
-- option server afar: port
-- option server afar: dbname
ALTER SERVER afar OPTIONS (SET host 'b', DROP port, ADD dbname 'd');
-- user mapping FOR PUBLIC SERVER afar
CREATE USER MAPPING FOR PUBLIC SERVER afar OPTIONS ("user" 'p');
-- table app.plain
CREATE TABLE app.plain (id int GENERATED BY DEFAULT AS IDENTITY (START 5) PRIMARY KEY, "odd Name" text COLLATE "C" DEFAULT app.twice(2)::text NOT NULL, g int GENERATED ALWAYS AS (app.twice(id)) STORED, CHECK ("odd Name" <> ''), s serial) WITH (fillfactor = 70, toast.autovacuum_enabled = false);
-- table app.circle_a
-- table app.circle_b
CREATE TABLE app.circle_a (id int PRIMARY KEY); CREATE TABLE app.circle_b (id int PRIMARY KEY REFERENCES app.circle_a); ALTER TABLE app.circle_a ADD FOREIGN KEY (id) REFERENCES app.circle_b;
-- table app.events_3
CREATE TABLE app.events_3 PARTITION OF app.events FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
-- table app.listed
-- table app.listed_a
-- table app.listed_a0
-- table app.listed_rest
CREATE TABLE app.listed (k text, v int) PARTITION BY LIST (k); CREATE TABLE app.listed_a PARTITION OF app.listed FOR VALUES IN ('a', 'b') PARTITION BY HASH (v); CREATE TABLE app.listed_a0 PARTITION OF app.listed_a FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE app.listed_rest PARTITION OF app.listed DEFAULT; ALTER TABLE app.listed ADD PRIMARY KEY (k, v);
-- partition app.events_2
ALTER TABLE app.events DETACH PARTITION app.events_2; ALTER TABLE app.events ATTACH PARTITION app.events_2 FOR VALUES FROM ('2026-02-01') TO ('2026-02-15');
-- partition app.events_1
ALTER TABLE app.events DETACH PARTITION app.events_1;
-- inheritance app.child from app.parent
ALTER TABLE app.child NO INHERIT app.parent;
-- table app.second_child
CREATE TABLE app.second_child (d int) INHERITS (app.parent, app.points);
-- type of table app.typed
ALTER TABLE app.typed NOT OF;
-- unlogged app.child
ALTER TABLE app.child SET UNLOGGED;
-- access method of a table app.bystander
ALTER TABLE app.bystander SET ACCESS METHOD heap2;
-- tablespace app.bystander
ALTER TABLE app.bystander SET TABLESPACE drift_space;
-- column app.people.extra
ALTER TABLE app.people ADD COLUMN extra text NOT NULL DEFAULT 'e';
-- column app.people.rank
ALTER TABLE app.people ADD COLUMN rank int GENERATED BY DEFAULT AS IDENTITY;
-- column app.bystander.b
ALTER TABLE app.bystander DROP COLUMN b;
-- column app.people.age
ALTER TABLE app.people DROP COLUMN doubled; DROP VIEW app.grown_names, app.grown; ALTER TABLE app.people ALTER COLUMN age TYPE bigint; ALTER TABLE app.people ADD COLUMN doubled int GENERATED ALWAYS AS (age * 2) STORED; CREATE VIEW app.grown AS SELECT id, name, status FROM app.people WHERE age > 20; CREATE VIEW app.grown_names AS SELECT name FROM app.grown;
-- column app.people.born
ALTER TABLE app.people ALTER COLUMN born DROP DEFAULT, ALTER COLUMN born TYPE text COLLATE "C";
-- column app.people.doubled
ALTER TABLE app.people DROP COLUMN doubled; ALTER TABLE app.people ADD COLUMN doubled int GENERATED ALWAYS AS (age * 3) STORED;
-- column app.people.doubled
ALTER TABLE app.people ALTER COLUMN doubled DROP EXPRESSION;
-- column app.events.more
ALTER TABLE app.events ADD COLUMN more text DEFAULT 'm';
-- column app.parent.more
ALTER TABLE app.parent ADD COLUMN more int;
-- not null app.people.nick
ALTER TABLE app.people ALTER COLUMN nick SET NOT NULL;
-- not null app.people.name
ALTER TABLE app.people ALTER COLUMN name DROP NOT NULL;
-- not null app.events.n
ALTER TABLE app.events ALTER COLUMN n SET NOT NULL;
-- default app.people.born
ALTER TABLE app.people ALTER COLUMN born SET DEFAULT '2000-01-01';
-- default app.people.status
ALTER TABLE app.people ALTER COLUMN status DROP DEFAULT;
-- default app.grown.name
ALTER VIEW app.grown ALTER COLUMN name SET DEFAULT 'v';
-- default app.events_1.what
ALTER TABLE app.events_1 ALTER COLUMN what SET DEFAULT 'y';
-- identity app.people.id
ALTER TABLE app.people ALTER COLUMN id SET GENERATED BY DEFAULT SET INCREMENT BY 3 SET CYCLE SET MAXVALUE 500;
-- identity app.notes.id
ALTER TABLE app.notes ALTER COLUMN id DROP DEFAULT; DROP SEQUENCE app.notes_id_seq; ALTER TABLE app.notes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;
-- storage app.people.name
ALTER TABLE app.people ALTER COLUMN name SET STORAGE EXTERNAL;
-- compression app.people.name
ALTER TABLE app.people ALTER COLUMN name SET COMPRESSION pglz;
-- statistics target app.people.name
ALTER TABLE app.people ALTER COLUMN name SET STATISTICS 500;
-- statistics target app.people_lower: 1
ALTER INDEX app.people_lower ALTER COLUMN 1 SET STATISTICS 77;
-- statistics target app.people_stats
ALTER STATISTICS app.people_stats SET STATISTICS 33;
-- option app.people.name: n_distinct
ALTER TABLE app.people ALTER COLUMN name SET (n_distinct = -0.5);
-- option app.remote.id: column_name
ALTER FOREIGN TABLE app.remote ALTER COLUMN id OPTIONS (SET column_name 'j');
-- option app.remote: table_name
-- option app.remote: schema_name
ALTER FOREIGN TABLE app.remote OPTIONS (SET table_name 's', ADD schema_name 'x');
-- column app.remote.u
ALTER FOREIGN TABLE app.remote ADD COLUMN u int OPTIONS (column_name 'uu');
-- column app.remote.id
ALTER FOREIGN TABLE app.remote ALTER COLUMN id TYPE bigint;
-- option app.people: fillfactor
-- option app.people: toast.autovacuum_enabled
ALTER TABLE app.people SET (fillfactor = 60, toast.autovacuum_enabled = false);
-- option app.one_name: fillfactor
ALTER INDEX app.one_name SET (fillfactor = 60);
-- option app.grown: security_barrier
-- option app.grown: security_invoker
ALTER VIEW app.grown SET (security_barrier = true, security_invoker = true);
-- view app.grown
DROP VIEW app.grown_names, app.grown; CREATE VIEW app.grown AS SELECT id, name, age FROM app.people WHERE age > 21; CREATE VIEW app.grown_names AS SELECT name FROM app.grown;
-- view app.checked
CREATE VIEW app.checked AS SELECT id FROM app.bystander WHERE id > 1 WITH CASCADED CHECK OPTION;
-- materialized view app.counts
DROP MATERIALIZED VIEW app.counts; CREATE MATERIALIZED VIEW app.counts AS SELECT status, max(age) FROM app.people GROUP BY status WITH NO DATA;
-- constraint adult on app.people
ALTER TABLE app.people DROP CONSTRAINT adult; ALTER TABLE app.people ADD CONSTRAINT adult CHECK (age > 18) NOT VALID;
-- constraint adult on app.people
ALTER TABLE app.people DROP CONSTRAINT adult; ALTER TABLE app.people ADD CONSTRAINT adult CHECK (age > 17) NOT VALID;
-- constraint people_pkey on app.people
-- constraint only_id on app.people
ALTER TABLE app.people DROP CONSTRAINT people_pkey CASCADE; ALTER TABLE app.people ADD CONSTRAINT people_pkey PRIMARY KEY (id, name); ALTER TABLE app.people ADD CONSTRAINT only_id UNIQUE (id); ALTER TABLE app.notes ADD CONSTRAINT notes_person_fkey FOREIGN KEY (person) REFERENCES app.people (id) ON DELETE CASCADE;
-- constraint one_name on app.people
ALTER TABLE app.people DROP CONSTRAINT one_name; ALTER TABLE app.people ADD CONSTRAINT one_name UNIQUE NULLS NOT DISTINCT (name) DEFERRABLE INITIALLY DEFERRED;
-- constraint notes_person_fkey on app.notes
ALTER TABLE app.notes ALTER CONSTRAINT notes_person_fkey DEFERRABLE;
-- constraint apart on app.notes
ALTER TABLE app.notes DROP CONSTRAINT apart;
-- constraint positive on app.events
ALTER TABLE app.events ADD CONSTRAINT positive CHECK (n > 0);
-- constraint alone on app.parent
ALTER TABLE app.parent ADD CONSTRAINT alone CHECK (a > 0) NO INHERIT;
-- enforcement notes_person_fkey on app.notes
-- enforcement once on app.notes
ALTER TABLE app.notes DISABLE TRIGGER ALL;
-- index app.people_age
CREATE INDEX people_age ON app.people USING btree (age DESC NULLS LAST) WITH (fillfactor = 50);
-- index app.people_status
DROP INDEX app.people_status; CREATE INDEX people_status ON app.people USING hash (status);
-- > index app.people_lower
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.people_lower'::regclass;
-- index app.events_n
CREATE INDEX events_n ON app.events (n);
-- tablespace app.people_lower
ALTER INDEX app.people_lower SET TABLESPACE drift_space;
-- replica identity app.people
ALTER TABLE app.people REPLICA IDENTITY USING INDEX one_name;
-- replica identity app.notes
ALTER TABLE app.notes REPLICA IDENTITY FULL;
-- clustered on app.people
ALTER TABLE app.people CLUSTER ON one_name;
-- statistics app.people_stats
DROP STATISTICS app.people_stats; CREATE STATISTICS app.people_stats (mcv, ndistinct) ON name, (age % 2) FROM app.people;
-- rule quiet on app.bystander
CREATE OR REPLACE RULE quiet AS ON DELETE TO app.bystander WHERE OLD.id > 1 DO ALSO INSERT INTO app.parent VALUES (1);
-- firing rule quiet on app.bystander
ALTER TABLE app.bystander DISABLE RULE quiet;
-- trigger touched on app.people
CREATE OR REPLACE TRIGGER touched BEFORE UPDATE OF name ON app.people FOR EACH ROW WHEN (NEW.age > 1) EXECUTE FUNCTION app.touch('x');
-- trigger late on app.people
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON app.people DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.touch();
-- firing trigger touched on app.people
ALTER TABLE app.people DISABLE TRIGGER touched;
-- firing trigger event_touched on app.events_1
ALTER TABLE app.events_1 ENABLE ALWAYS TRIGGER event_touched;
-- firing event trigger watch
ALTER EVENT TRIGGER watch DISABLE;
-- event trigger watch
DROP EVENT TRIGGER watch; CREATE EVENT TRIGGER watch ON sql_drop EXECUTE FUNCTION app.audit_ddl();
-- policy own on app.people
ALTER POLICY own ON app.people USING (true);
-- policy strict on app.notes
CREATE POLICY strict ON app.notes AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (id > 0) WITH CHECK (id > 1);
-- row security app.people
ALTER TABLE app.people DISABLE ROW LEVEL SECURITY;
-- forced row security app.people
ALTER TABLE app.people FORCE ROW LEVEL SECURITY;
-- publication every
CREATE PUBLICATION every FOR ALL TABLES;
-- publication parameters few
ALTER PUBLICATION few SET (publish = 'insert', publish_via_partition_root = true);
-- published table app.bystander in few
ALTER PUBLICATION few SET TABLE app.bystander (id, b);
-- published schema spare in few
-- published table app.bystander in few
ALTER PUBLICATION few SET TABLE app.bystander; ALTER PUBLICATION few ADD TABLES IN SCHEMA spare;
-- subscription second
CREATE SUBSCRIPTION second CONNECTION 'host=nowhere' PUBLICATION theirs WITH (connect = false, slot_name = NONE);
-- subscribed publications from_afar
ALTER SUBSCRIPTION from_afar SET PUBLICATION others WITH (refresh = false);
-- subscription parameters from_afar
ALTER SUBSCRIPTION from_afar SET (binary = true, synchronous_commit = 'on');
-- comment TABLE app.people
COMMENT ON TABLE app.people IS 'Who''s there.';
-- comment COLUMN app.people.name
COMMENT ON COLUMN app.people.name IS NULL;
-- comment CONSTRAINT adult ON app.people
-- comment INDEX app.people_lower
-- comment TRIGGER touched ON app.people
-- comment POLICY own ON app.people
-- comment RULE quiet ON app.bystander
COMMENT ON CONSTRAINT adult ON app.people IS 'c'; COMMENT ON INDEX app.people_lower IS 'i'; COMMENT ON TRIGGER touched ON app.people IS 't'; COMMENT ON POLICY own ON app.people IS 'p'; COMMENT ON RULE quiet ON app.bystander IS 'r';
-- comment FUNCTION app.twice(n integer)
-- comment AGGREGATE app.total(integer)
-- comment PROCEDURE app.tidy(INOUT n integer)
-- comment OPERATOR app.=== (app.place, app.place)
-- comment CAST (app.place AS text)
-- comment OPERATOR CLASS app.backwards USING btree
-- comment OPERATOR FAMILY app.extra USING btree
COMMENT ON FUNCTION app.twice IS 'f'; COMMENT ON AGGREGATE app.total(int) IS 'a'; COMMENT ON PROCEDURE app.tidy IS 'p'; COMMENT ON OPERATOR app.=== (app.place, app.place) IS 'o'; COMMENT ON CAST (app.place AS text) IS 'c'; COMMENT ON OPERATOR CLASS app.backwards USING btree IS 'oc'; COMMENT ON OPERATOR FAMILY app.extra USING btree IS 'of';
-- comment TYPE app.status
-- comment DOMAIN app.email
-- comment CONSTRAINT has_at ON DOMAIN app.email
-- comment COLLATION app.german
-- comment CONVERSION app.latin
-- comment TEXT SEARCH CONFIGURATION app.search
-- comment TEXT SEARCH DICTIONARY app.words
COMMENT ON TYPE app.status IS 'e'; COMMENT ON DOMAIN app.email IS 'd'; COMMENT ON CONSTRAINT has_at ON DOMAIN app.email IS 'dc'; COMMENT ON COLLATION app.german IS 'co'; COMMENT ON CONVERSION app.latin IS 'cv'; COMMENT ON TEXT SEARCH CONFIGURATION app.search IS 'ts'; COMMENT ON TEXT SEARCH DICTIONARY app.words IS 'td';
-- comment SCHEMA app
-- comment SEQUENCE app.numbers
-- comment VIEW app.grown
-- comment COLUMN app.grown.name
-- comment MATERIALIZED VIEW app.counts
-- comment STATISTICS app.people_stats
-- comment COLUMN app.place.street
-- comment FOREIGN TABLE app.remote
COMMENT ON SCHEMA app IS 's'; COMMENT ON SEQUENCE app.numbers IS 'q'; COMMENT ON VIEW app.grown IS 'v'; COMMENT ON COLUMN app.grown.name IS 'vc'; COMMENT ON MATERIALIZED VIEW app.counts IS 'm'; COMMENT ON STATISTICS app.people_stats IS 'x'; COMMENT ON COLUMN app.place.street IS 'pc'; COMMENT ON FOREIGN TABLE app.remote IS 'ft';
-- comment SERVER afar
-- comment FOREIGN DATA WRAPPER hollow
-- comment PUBLICATION few
-- comment SUBSCRIPTION from_afar
-- comment EVENT TRIGGER watch
-- comment LANGUAGE plother
-- comment ACCESS METHOD heap2
COMMENT ON SERVER afar IS 's'; COMMENT ON FOREIGN DATA WRAPPER hollow IS 'w'; COMMENT ON PUBLICATION few IS 'p'; COMMENT ON SUBSCRIPTION from_afar IS 's'; COMMENT ON EVENT TRIGGER watch IS 'e'; COMMENT ON LANGUAGE plother IS 'l'; COMMENT ON ACCESS METHOD heap2 IS 'a';
-- owner TABLE app.people
ALTER TABLE app.people OWNER TO drift_owner;
-- owner FUNCTION app.twice(n integer)
-- owner AGGREGATE app.total(integer)
-- owner TYPE app.status
-- owner DOMAIN app.email
-- owner SCHEMA spare
-- owner VIEW app.grown
-- owner MATERIALIZED VIEW app.counts
-- owner SEQUENCE app.loose
-- owner FOREIGN TABLE app.remote
-- owner SERVER afar
-- owner STATISTICS app.people_stats
-- owner OPERATOR app.=== (app.place, app.place)
-- owner COLLATION app.german
ALTER FUNCTION app.twice OWNER TO drift_owner; ALTER AGGREGATE app.total(int) OWNER TO drift_owner; ALTER TYPE app.status OWNER TO drift_owner; ALTER DOMAIN app.email OWNER TO drift_owner; ALTER SCHEMA spare OWNER TO drift_owner; ALTER VIEW app.grown OWNER TO drift_owner; ALTER MATERIALIZED VIEW app.counts OWNER TO drift_owner; ALTER SEQUENCE app.loose OWNER TO drift_owner; ALTER FOREIGN TABLE app.remote OWNER TO drift_owner; ALTER SERVER afar OWNER TO drift_owner; ALTER STATISTICS app.people_stats OWNER TO drift_owner; ALTER OPERATOR app.=== (app.place, app.place) OWNER TO drift_owner; ALTER COLLATION app.german OWNER TO drift_owner;
-- grant TABLE app.people to drift_reader
GRANT DELETE ON app.people TO drift_reader WITH GRANT OPTION; REVOKE INSERT ON app.people FROM drift_reader;
-- column grant TABLE app.people (nick) to drift_reader
-- column grant TABLE app.people (age) to drift_reader
REVOKE UPDATE (nick) ON app.people FROM drift_reader; GRANT SELECT (age), INSERT (age) ON app.people TO drift_reader;
-- grant TABLE app.people to its owner
REVOKE TRUNCATE ON app.people FROM CURRENT_USER;
-- grant ROUTINE app.twice(integer) to PUBLIC
-- grant ROUTINE app.total(integer) to PUBLIC
GRANT EXECUTE ON FUNCTION app.twice(int) TO PUBLIC; REVOKE ALL ON FUNCTION app.total(int) FROM PUBLIC;
-- grant SEQUENCE app.numbers to drift_reader
-- grant SCHEMA app to drift_reader
-- grant TYPE app.status to PUBLIC
-- grant LANGUAGE plother to drift_reader
-- grant FOREIGN SERVER afar to drift_reader
-- grant FOREIGN DATA WRAPPER hollow to drift_reader
GRANT USAGE ON SEQUENCE app.numbers TO drift_reader; GRANT CREATE ON SCHEMA app TO drift_reader; REVOKE USAGE ON TYPE app.status FROM PUBLIC; GRANT USAGE ON LANGUAGE plother TO drift_reader; GRANT USAGE ON FOREIGN SERVER afar TO drift_reader; GRANT USAGE ON FOREIGN DATA WRAPPER hollow TO drift_reader;
-- grant DATABASE of this name to drift_reader
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO drift_reader', current_database()); END $$;
-- default privileges TABLES of postgres IN SCHEMA spare to drift_reader
ALTER DEFAULT PRIVILEGES IN SCHEMA spare GRANT INSERT ON TABLES TO drift_reader;
-- default privileges FUNCTIONS of postgres to PUBLIC
-- default privileges SCHEMAS of postgres to drift_reader
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO drift_reader;
-- setting work_mem
-- setting search_path for role drift_reader
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''8MB''', current_database()); EXECUTE format('ALTER ROLE drift_reader IN DATABASE %I SET search_path = app, "$user"', current_database()); END $$;
-- comment database
DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE %I IS ''d''', current_database()); END $$;
