-- aggregate app.total(integer)
-- cast (app.place AS text)
-- collation app.german
-- conversion app.latin
-- event trigger watch
-- operator app.=== (app.place, app.place)
-- operator class app.backwards USING btree
-- operator family app.extra USING btree
-- operator family app.backwards USING btree
-- text search configuration app.search
-- text search dictionary app.words
-- text search parser app.splitter
-- text search template app.simplest
-- transform FOR app.addr LANGUAGE plother
-- language plother
-- access method heap2
DROP AGGREGATE app.total(int); DROP CAST (app.place AS text); DROP COLLATION app.german; DROP CONVERSION app.latin; DROP EVENT TRIGGER watch; DROP OPERATOR app.=== (app.place, app.place); DROP OPERATOR CLASS app.backwards USING btree; DROP OPERATOR FAMILY app.extra USING btree; DROP OPERATOR FAMILY app.backwards USING btree; DROP TEXT SEARCH CONFIGURATION app.search; DROP TEXT SEARCH DICTIONARY app.words; DROP TEXT SEARCH PARSER app.splitter; DROP TEXT SEARCH TEMPLATE app.simplest; DROP TRANSFORM FOR app.addr LANGUAGE plother; DROP LANGUAGE plother; DROP ACCESS METHOD heap2;
-- publication few
-- rule quiet on app.bystander
-- sequence app.loose
-- statistics app.people_stats
-- trigger touched on app.people
-- policy own on app.people
-- user mapping FOR drift_reader SERVER afar
-- materialized view app.counts
-- view app.grown_names
-- index app.people_lower
-- procedure app.tidy(INOUT n integer)
-- function app.twice(n integer)
-- schema spare
DROP PUBLICATION few; DROP RULE quiet ON app.bystander; DROP SEQUENCE app.loose; DROP STATISTICS app.people_stats; DROP TRIGGER touched ON app.people; DROP POLICY own ON app.people; DROP USER MAPPING FOR drift_reader SERVER afar; DROP MATERIALIZED VIEW app.counts; DROP VIEW app.grown_names; DROP INDEX app.people_lower; DROP PROCEDURE app.tidy; DROP ROUTINE app.twice(int); DROP SCHEMA spare;
-- function app.touch()
-- trigger event_touched on app.events
-- domain app.email
-- column app.people.mail
-- enum app.status
-- column app.people.status
-- table app.parent
-- table app.child
-- foreign-data wrapper hollow
DROP FUNCTION app.touch() CASCADE; DROP DOMAIN app.email CASCADE; DROP TYPE app.status CASCADE; DROP TABLE app.parent CASCADE; DROP FOREIGN DATA WRAPPER hollow CASCADE;
-- server afar
DROP SERVER afar CASCADE;
-- subscription from_afar
DROP SUBSCRIPTION from_afar;
-- subscription from_afar
DROP SUBSCRIPTION from_afar; CREATE SUBSCRIPTION from_afar CONNECTION 'host=nowhere' PUBLICATION theirs WITH (connect = false, slot_name = NONE, two_phase = true);
-- subscribed publications from_afar
ALTER SUBSCRIPTION from_afar SET PUBLICATION theirs, more WITH (refresh = false); ALTER SUBSCRIPTION from_afar DROP PUBLICATION theirs WITH (refresh = false);
-- table app.bystander
-- policy leaving on app.notes
GRANT SELECT ON app.people TO drift_leaver; CREATE POLICY leaving ON app.notes TO drift_leaver, drift_reader; ALTER TABLE app.bystander OWNER TO drift_leaver; DROP OWNED BY drift_leaver CASCADE;
-- owner TABLE app.bystander
-- owner FUNCTION app.touch()
ALTER TABLE app.bystander OWNER TO drift_leaver; ALTER FUNCTION app.touch() OWNER TO drift_leaver; REASSIGN OWNED BY drift_leaver TO drift_owner;
-- aggregate app.flow(integer)
CREATE OR REPLACE AGGREGATE app.flow(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, MINITCOND = '0', MSSPACE = 64);
-- aggregate app.flow(integer)
CREATE OR REPLACE AGGREGATE app.flow(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, MINITCOND = '0', MFINALFUNC_MODIFY = READ_WRITE);
-- aggregate app.flow(integer)
CREATE FUNCTION app.flow_end(int, int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1; CREATE OR REPLACE AGGREGATE app.flow(int) (SFUNC = int4pl, STYPE = int, SSPACE = 8, INITCOND = '0', MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, MINITCOND = '0', MFINALFUNC = app.flow_end, MFINALFUNC_EXTRA, SORTOP = <);
-- aggregate app.rated(VARIADIC "any" ORDER BY VARIADIC "any")
-- aggregate app.mean(bigint)
CREATE AGGREGATE app.rated(VARIADIC "any" ORDER BY VARIADIC "any") (SFUNC = ordered_set_transition_multi, STYPE = internal, FINALFUNC = rank_final, FINALFUNC_EXTRA, FINALFUNC_MODIFY = SHAREABLE, HYPOTHETICAL); ALTER AGGREGATE app.rated(VARIADIC "any" ORDER BY VARIADIC "any") OWNER TO drift_owner; COMMENT ON AGGREGATE app.rated(VARIADIC "any" ORDER BY VARIADIC "any") IS 'r'; CREATE AGGREGATE app.mean(int8) (SFUNC = int8_avg_accum, STYPE = internal, SSPACE = 48, FINALFUNC = numeric_poly_avg, COMBINEFUNC = int8_avg_combine, SERIALFUNC = int8_avg_serialize, DESERIALFUNC = int8_avg_deserialize, PARALLEL = RESTRICTED);
-- language plother
CREATE OR REPLACE LANGUAGE plother HANDLER plpgsql_call_handler INLINE plpgsql_inline_handler VALIDATOR plpgsql_validator;
-- conversion app.latin
DROP CONVERSION app.latin; CREATE DEFAULT CONVERSION app.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
-- type app.steps
-- table app.stepped
CREATE TYPE app.steps; CREATE FUNCTION app.a_step(app.steps) RETURNS app.steps LANGUAGE internal IMMUTABLE STRICT AS 'int4range_canonical'; CREATE TYPE app.steps AS RANGE (SUBTYPE = int, CANONICAL = app.a_step); ALTER TYPE app.steps OWNER TO drift_owner; CREATE TABLE app.stepped (s app.steps, m app.steps_multirange);
-- base type app.grain
ALTER TYPE app.grain SET (TYPMOD_IN = varchartypmodin, TYPMOD_OUT = varchartypmodout, ANALYZE = range_typanalyze);
-- base type app.rich
CREATE TYPE app.rich; CREATE FUNCTION app.rich_read(cstring) RETURNS app.rich LANGUAGE internal IMMUTABLE STRICT AS 'point_in'; CREATE FUNCTION app.rich_print(app.rich) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'point_out'; CREATE FUNCTION app.rich_send(app.rich) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS 'point_send'; CREATE TYPE app.rich (INPUT = app.rich_read, OUTPUT = app.rich_print, SEND = app.rich_send, INTERNALLENGTH = 16, ALIGNMENT = double, STORAGE = plain, CATEGORY = 'X', PREFERRED = true, DEFAULT = '(1,2)', ELEMENT = float8, SUBSCRIPT = raw_array_subscript_handler, DELIMITER = ';', COLLATABLE = true); CREATE TYPE app.like_grain; CREATE FUNCTION app.like_grain_in(cstring) RETURNS app.like_grain LANGUAGE internal IMMUTABLE STRICT AS 'byteain'; CREATE FUNCTION app.like_grain_out(app.like_grain) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'byteaout'; CREATE TYPE app.like_grain (INPUT = app.like_grain_in, OUTPUT = app.like_grain_out, LIKE = bytea);
-- type app.oddly
-- type app.nothing
-- enum app.empty
CREATE TYPE app.oddly AS ("Odd One" text COLLATE "C", place app.place[]); ALTER TYPE app.oddly ADD ATTRIBUTE more varchar(3) COLLATE "C", DROP ATTRIBUTE place; CREATE TYPE app.nothing AS (); CREATE TYPE app.empty AS ENUM ();
-- enum app.status
ALTER TYPE app.status ADD VALUE IF NOT EXISTS 'first' BEFORE 'new';
-- sequence app.loose
ALTER SEQUENCE app.loose INCREMENT -1 MINVALUE -100 MAXVALUE -1 START -1 RESTART;
-- sequence app.numbers
ALTER SEQUENCE app.numbers MAXVALUE 40 CACHE 2;
-- unlogged app.people_id_seq
ALTER SEQUENCE app.people_id_seq SET UNLOGGED;
-- identity app.people.id
ALTER TABLE app.people ALTER id SET MINVALUE 1000 SET START 1000 RESTART;
-- identity app.people.id
ALTER SEQUENCE app.people_id_seq RENAME TO person_numbers;
-- grant TABLE app.people to drift_owner
-- grant TABLE app.people to drift_reader
GRANT SELECT ON app.people TO drift_reader WITH GRANT OPTION; SET ROLE drift_reader; GRANT SELECT ON app.people TO drift_owner; RESET ROLE;
-- grant TABLE app.people to drift_owner
-- column grant TABLE app.people (age) to drift_leaver
GRANT INSERT ON app.people TO drift_reader WITH GRANT OPTION; GRANT SELECT (age) ON app.people TO drift_reader WITH GRANT OPTION; SET ROLE drift_reader; GRANT INSERT ON app.people TO drift_owner WITH GRANT OPTION; GRANT SELECT (age) ON app.people TO drift_leaver; RESET ROLE; GRANT USAGE ON SCHEMA app TO drift_owner; SET ROLE drift_owner; GRANT INSERT ON app.people TO drift_leaver; RESET ROLE; GRANT INSERT ON app.people TO drift_leaver;
-- grant TABLE app.parent to drift_reader
-- grant SEQUENCE app.loose to drift_reader
-- grant ROUTINE app.tidy(integer) to drift_reader
-- grant TYPE app.email to drift_reader
GRANT ALL ON ALL TABLES IN SCHEMA app TO drift_reader; GRANT ALL ON ALL SEQUENCES IN SCHEMA app TO drift_reader; GRANT ALL ON ALL ROUTINES IN SCHEMA app TO drift_reader; GRANT ALL ON DOMAIN app.email TO drift_reader;
-- grant ROUTINE app.citext_eq(app.citext, app.citext) to drift_reader
-- grant LANGUAGE plpgsql to PUBLIC
-- grant TYPE app.citext to PUBLIC
GRANT EXECUTE ON FUNCTION app.citext_eq(app.citext, app.citext) TO drift_reader; REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC; REVOKE USAGE ON TYPE app.citext FROM PUBLIC;
-- default privileges TABLES of drift_owner to drift_owner
-- default privileges FUNCTIONS of drift_owner IN SCHEMA spare to drift_reader
-- default privileges SCHEMAS of drift_owner to drift_reader
-- default privileges TABLES of postgres IN SCHEMA spare to drift_reader
ALTER DEFAULT PRIVILEGES FOR ROLE drift_owner REVOKE ALL ON TABLES FROM drift_owner; ALTER DEFAULT PRIVILEGES FOR USER drift_owner IN SCHEMA spare GRANT ALL ON ROUTINES TO GROUP drift_reader; ALTER DEFAULT PRIVILEGES FOR ROLE drift_owner GRANT CREATE ON SCHEMAS TO drift_reader WITH GRANT OPTION; ALTER DEFAULT PRIVILEGES FOR ROLE drift_owner REVOKE GRANT OPTION FOR CREATE ON SCHEMAS FROM drift_reader; ALTER DEFAULT PRIVILEGES IN SCHEMA spare GRANT SELECT ON TABLES TO drift_reader WITH GRANT OPTION;
-- column app.parent.b
ALTER TABLE ONLY app.parent DROP COLUMN b;
-- not null app.parent.a
-- default app.parent.b
ALTER TABLE ONLY app.parent ALTER a SET NOT NULL, ALTER b SET DEFAULT 'q';
-- inheritance app.child from app.parent
-- column app.child.b
-- constraint sane on app.child
ALTER TABLE app.child NO INHERIT app.parent; ALTER TABLE app.child DROP COLUMN b, DROP CONSTRAINT sane;
-- partition app.events_2
-- column app.events_2.n
-- index app.events_2_what_idx
-- not null app.events_2.at
ALTER TABLE app.events DETACH PARTITION app.events_2; ALTER TABLE app.events_2 DROP COLUMN n, ALTER at DROP NOT NULL; DROP INDEX app.events_2_what_idx;
-- type of table app.typed
-- column app.typed.number
-- column app.typed.zip
ALTER TABLE app.typed NOT OF; ALTER TABLE app.typed DROP COLUMN number, ADD COLUMN zip int;
-- constraint sane on app.parent
ALTER TABLE ONLY app.parent DROP CONSTRAINT sane;
-- > partition app.events_1
UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = 'app.events_1'::regclass;
-- partition app.events_2
ALTER TABLE app.events DETACH PARTITION app.events_2 CONCURRENTLY;
-- table app.events
DROP TABLE app.events; CREATE TABLE app.events (at date NOT NULL, what text DEFAULT 'x', n int) PARTITION BY RANGE (at); CREATE TABLE app.events_1 PARTITION OF app.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01'); CREATE TABLE app.events_2 PARTITION OF app.events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01'); CREATE INDEX events_what ON app.events (what); CREATE TRIGGER event_touched AFTER INSERT ON app.events FOR EACH ROW EXECUTE FUNCTION app.touch();
-- table app.events_4
-- table app.spoken
-- table app.spoken_1
-- table app.typed_2
CREATE TABLE app.events_4 PARTITION OF app.events (what DEFAULT 'z' NOT NULL, n WITH OPTIONS CONSTRAINT many CHECK (n > 0), CONSTRAINT own UNIQUE (n)) FOR VALUES FROM ('2026-04-01') TO (MAXVALUE) WITH (fillfactor = 50) TABLESPACE drift_space; CREATE TABLE app.spoken (k text COMPRESSION pglz, v int) PARTITION BY RANGE (lower(k) COLLATE "C" text_pattern_ops, v); CREATE UNLOGGED TABLE app.spoken_1 PARTITION OF app.spoken FOR VALUES FROM (MINVALUE, MINVALUE) TO ('m', 5); CREATE TABLE app.typed_2 OF app.place (street WITH OPTIONS DEFAULT 's' NOT NULL, PRIMARY KEY (number)) USING heap2;
-- table app.chosen
-- table app.hollow_copy
-- schema whole
SELECT id, name INTO app.chosen FROM app.people; CREATE TABLE app.hollow_copy (a, b) WITH (fillfactor = 30) AS SELECT id, name FROM app.people WITH NO DATA; CREATE SCHEMA whole AUTHORIZATION drift_owner CREATE TABLE films (id int PRIMARY KEY) CREATE VIEW seen AS SELECT id FROM films CREATE INDEX by_id ON films (id) CREATE SEQUENCE numbers GRANT SELECT ON films TO drift_reader;
-- constraint wide on app.bystander
-- constraint roundabout on app.notes
-- constraint sorted on app.notes
ALTER TABLE app.bystander ADD CONSTRAINT wide UNIQUE (id) INCLUDE (a) WITH (fillfactor = 70) USING INDEX TABLESPACE drift_space; ALTER TABLE app.notes ADD COLUMN other bigint DEFAULT 1 CONSTRAINT roundabout REFERENCES app.people MATCH SIMPLE ON DELETE SET DEFAULT (other) ON UPDATE RESTRICT NOT DEFERRABLE; ALTER TABLE app.notes ADD CONSTRAINT sorted EXCLUDE USING gist (during range_ops WITH &&) INCLUDE (id) WITH (fillfactor = 60) WHERE (id > 7) DEFERRABLE INITIALLY DEFERRED;
-- index app.people_age
CREATE INDEX CONCURRENTLY people_age ON app.people (age);
-- index app.people_lower
DROP INDEX CONCURRENTLY app.people_lower;
-- index app.people_tokens
CREATE INDEX people_tokens ON app.people USING gist (to_tsvector('simple', name) tsvector_ops (siglen = 100));
-- tablespace app.people_lower
REINDEX (TABLESPACE drift_space) INDEX app.people_lower;
-- tablespace app.people
-- tablespace app.events_1
-- tablespace app.people_pkey
-- tablespace app.events_1_what_idx
-- tablespace app.counts
ALTER TABLE ALL IN TABLESPACE pg_default OWNED BY CURRENT_USER SET TABLESPACE drift_space NOWAIT; ALTER INDEX ALL IN TABLESPACE pg_default SET TABLESPACE drift_space; ALTER MATERIALIZED VIEW ALL IN TABLESPACE pg_default SET TABLESPACE drift_space;
-- clustered on app.people
CLUSTER app.people USING people_pkey;
-- materialized view app.counts
DROP MATERIALIZED VIEW app.counts; CREATE MATERIALIZED VIEW app.counts (status, count, name) USING heap2 WITH (fillfactor = 50, toast.autovacuum_enabled = off) TABLESPACE drift_space AS SELECT status, count(*), max(name) FROM app.people GROUP BY status WITH NO DATA; CREATE UNIQUE INDEX counts_status ON app.counts (status); REFRESH MATERIALIZED VIEW app.counts;
-- option app.counts.status: n_distinct
-- storage app.counts.top
-- compression app.counts.top
ALTER MATERIALIZED VIEW app.counts ALTER status SET (n_distinct = 3), ALTER top SET STORAGE EXTERNAL, ALTER top SET COMPRESSION pglz;
-- view app.counted
-- view app.narrow
CREATE RECURSIVE VIEW app.counted (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counted WHERE n < 9; CREATE OR REPLACE VIEW app.narrow (id) WITH (security_barrier) AS SELECT id FROM app.bystander WHERE id > 1 WITH LOCAL CHECK OPTION;
-- option app.grown: check_option
-- default app.grown.status
ALTER VIEW app.grown SET (check_option = local); ALTER VIEW app.grown ALTER COLUMN status SET DEFAULT 'done';
-- operator app.=== (app.place, app.place)
ALTER OPERATOR app.=== (app.place, app.place) SET (RESTRICT = eqsel, JOIN = eqjoinsel);
-- operator app.!== (app.place, app.place)
-- operator app.=== (app.place, app.place)
CREATE FUNCTION app.other(a app.place, b app.place) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT false $$; CREATE OPERATOR app.!== (PROCEDURE = app.other, LEFTARG = app.place, RIGHTARG = app.place, NEGATOR = OPERATOR(app.===), RESTRICT = neqsel, JOIN = neqjoinsel);
-- operator class app.by_rank USING btree
-- operator family app.nearness USING gist
CREATE FUNCTION app.rank_cmp(a app.addr, b app.addr) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT 0 $$; CREATE FUNCTION app.rank_lt(a app.addr, b app.addr) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT false $$; CREATE OPERATOR app.<% (FUNCTION = app.rank_lt, LEFTARG = app.addr, RIGHTARG = app.addr); CREATE OPERATOR CLASS app.by_rank DEFAULT FOR TYPE app.addr USING btree AS OPERATOR 1 app.<% FOR SEARCH, FUNCTION 1 app.rank_cmp(app.addr, app.addr); CREATE OPERATOR FAMILY app.nearness USING gist; ALTER OPERATOR FAMILY app.nearness USING gist ADD OPERATOR 15 <-> (point, point) FOR ORDER BY float_ops;
-- operator family app.extras USING btree
-- operator family app.extra USING btree
ALTER OPERATOR FAMILY app.extra USING btree OWNER TO drift_owner; ALTER OPERATOR FAMILY app.extra USING btree RENAME TO extras;
-- cast (app.grain AS bytea)
CREATE CAST (app.grain AS bytea) WITHOUT FUNCTION AS IMPLICIT;
-- collation app.plain
CREATE COLLATION IF NOT EXISTS app.plain FROM "C"; ALTER COLLATION app.plain OWNER TO drift_owner;
-- transform FOR app.addr LANGUAGE plother
-- function app.addressed(a app.addr)
CREATE FUNCTION app.to_addr(internal) RETURNS app.addr LANGUAGE internal IMMUTABLE AS 'textin'; CREATE OR REPLACE TRANSFORM FOR app.addr LANGUAGE plother (FROM SQL WITH FUNCTION app.from_addr(internal), TO SQL WITH FUNCTION app.to_addr(internal)); CREATE FUNCTION app.addressed(a app.addr) RETURNS int TRANSFORM FOR TYPE app.addr LANGUAGE plother AS $$ BEGIN RETURN 1; END $$;
-- function app.touch()
-- procedure app.tidy(INOUT n integer)
ALTER FUNCTION app.touch() EXTERNAL SECURITY DEFINER VOLATILE NOT LEAKPROOF PARALLEL SAFE COST 9; ALTER PROCEDURE app.tidy SECURITY DEFINER SET work_mem TO '1MB';
-- function app.listing(integer)
-- procedure app.swept(IN integer)
-- procedure app.atomic()
CREATE FUNCTION app.listing(int) RETURNS SETOF int LANGUAGE internal RETURNS NULL ON NULL INPUT STABLE ROWS 9 SUPPORT generate_series_int4_support AS 'generate_series_step_int4'; CREATE PROCEDURE app.swept(int = 3) LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$ BEGIN END $$; CREATE PROCEDURE app.atomic() LANGUAGE sql BEGIN ATOMIC INSERT INTO app.bystander (id) VALUES (1); DELETE FROM app.bystander WHERE id = 2; END;
-- trigger watched on app.people
-- trigger from_afar on app.notes
CREATE TRIGGER watched AFTER INSERT OR UPDATE OF name, age OR DELETE ON app.people FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE PROCEDURE app.touch('a', 'b'); CREATE CONSTRAINT TRIGGER from_afar AFTER UPDATE ON app.notes FROM app.people NOT DEFERRABLE FOR EACH ROW EXECUTE FUNCTION app.touch();
-- event trigger rewrites
-- event trigger drops
CREATE EVENT TRIGGER rewrites ON table_rewrite WHEN TAG IN ('ALTER TABLE', 'ALTER TYPE') EXECUTE PROCEDURE app.audit_ddl(); CREATE EVENT TRIGGER drops ON sql_drop EXECUTE FUNCTION app.audit_ddl();
-- rule many on app.bystander
CREATE RULE many AS ON UPDATE TO app.bystander WHERE NEW.id > 5 DO INSTEAD (INSERT INTO app.parent VALUES (1); DELETE FROM app.parent WHERE a = NEW.id);
-- policy every on app.notes
-- policy away on app.notes
CREATE POLICY every ON app.notes TO drift_reader, PUBLIC USING (id > 1) WITH CHECK (id > 2); CREATE POLICY away ON app.notes AS PERMISSIVE FOR DELETE TO CURRENT_USER USING (id > 3); ALTER POLICY away ON app.notes TO drift_owner USING (id > 4);
-- statistics app.spread
-- statistics app.all_kinds
CREATE STATISTICS app.spread ON (lower(name)) FROM app.people; CREATE STATISTICS IF NOT EXISTS app.all_kinds ON id, name, (age + 1) FROM app.people; ALTER STATISTICS app.all_kinds OWNER TO drift_owner;
-- publication alone
-- publication lots
CREATE PUBLICATION alone FOR TABLE ONLY app.parent, TABLES IN SCHEMA spare WITH (publish = 'insert, delete'); CREATE PUBLICATION lots FOR TABLE app.parent, app.events (at, n) WITH (publish_via_partition_root);
-- column app.bystander.id
ALTER PUBLICATION few DROP TABLE app.bystander; ALTER TABLE app.bystander ALTER id TYPE bigint; ALTER PUBLICATION few ADD TABLE app.bystander (id, a) WHERE (id > 1);
-- foreign table spare.distant
ALTER FOREIGN TABLE app.remote RENAME TO distant; ALTER FOREIGN TABLE app.distant SET SCHEMA spare; ALTER FOREIGN TABLE spare.distant OWNER TO drift_owner; ALTER FOREIGN TABLE spare.distant ADD CONSTRAINT small CHECK (id < 9) NOT VALID; ALTER FOREIGN TABLE spare.distant ADD COLUMN extra text; ALTER FOREIGN TABLE spare.distant DROP COLUMN t;
-- constraint adult on app.remote
ALTER FOREIGN TABLE app.remote ADD CONSTRAINT adult CHECK (id > 17) NOT VALID; ALTER FOREIGN TABLE app.remote VALIDATE CONSTRAINT adult;
-- foreign-data wrapper hollow
CREATE FUNCTION app.handler() RETURNS fdw_handler LANGUAGE c AS '$libdir/file_fdw', 'file_fdw_handler'; ALTER FOREIGN DATA WRAPPER hollow HANDLER app.handler;
-- foreign-data wrapper "full"
CREATE FOREIGN DATA WRAPPER "full" NO HANDLER VALIDATOR postgresql_fdw_validator; ALTER FOREIGN DATA WRAPPER "full" NO VALIDATOR OPTIONS (ADD debug 'on'); CREATE SERVER IF NOT EXISTS other TYPE 'a' VERSION '2' FOREIGN DATA WRAPPER "full" OPTIONS (host 'h'); CREATE USER MAPPING IF NOT EXISTS FOR CURRENT_USER SERVER other OPTIONS (password 'p');
-- server afar
DROP SERVER afar CASCADE; CREATE SERVER afar TYPE 'y' VERSION '1' FOREIGN DATA WRAPPER hollow OPTIONS (host 'a', port '1'); CREATE USER MAPPING FOR drift_reader SERVER afar OPTIONS ("user" 'a', password 'hidden'); CREATE FOREIGN TABLE app.remote (id int OPTIONS (column_name 'i'), t text) SERVER afar OPTIONS (table_name 'r');
-- extension postgres_fdw
-- foreign table spare.parent
CREATE EXTENSION postgres_fdw WITH SCHEMA spare; DO $$ BEGIN EXECUTE format('CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host ''127.0.0.1'', port %L, dbname %L)', current_setting('port'), current_database()); EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER loop OPTIONS ("user" %L, password %L)', current_user, current_setting('drift.password')); END $$; IMPORT FOREIGN SCHEMA app LIMIT TO (parent, people) FROM SERVER loop INTO spare; DROP USER MAPPING FOR CURRENT_USER SERVER loop;
-- text search mapping app.search for word
-- text search mapping app.search for numword
ALTER TEXT SEARCH CONFIGURATION app.search ALTER MAPPING FOR word, numword REPLACE simple WITH app.words;
-- text search configuration app.search
DROP TEXT SEARCH CONFIGURATION app.search; CREATE TEXT SEARCH CONFIGURATION app.search (PARSER = app.splitter); ALTER TEXT SEARCH CONFIGURATION app.search ADD MAPPING FOR word, int WITH app.words, simple;
-- text search dictionary app.stems
CREATE TEXT SEARCH DICTIONARY app.stems (TEMPLATE = snowball, Language = english, StopWords = english); ALTER TEXT SEARCH DICTIONARY app.stems (StopWords);
-- comment TYPE app.people
-- comment EXTENSION plpgsql
-- comment PROCEDURE app.tidy(INOUT n integer)
-- comment LANGUAGE plother
-- comment TRANSFORM FOR app.addr LANGUAGE plother
-- comment TEXT SEARCH PARSER app.splitter
-- comment TEXT SEARCH TEMPLATE app.simplest
COMMENT ON TYPE app.people IS 'A row.'; COMMENT ON EXTENSION plpgsql IS 'x'; COMMENT ON ROUTINE app.tidy IS 'r'; COMMENT ON PROCEDURAL LANGUAGE plother IS 'l'; COMMENT ON TRANSFORM FOR app.addr LANGUAGE plother IS 't'; COMMENT ON TEXT SEARCH PARSER app.splitter IS 'p'; COMMENT ON TEXT SEARCH TEMPLATE app.simplest IS 't';
-- extension member citext: AGGREGATE app.total(integer)
-- extension member citext: COLLATION app.german
-- extension member citext: CONVERSION app.latin
-- extension member citext: DOMAIN app.email
-- extension member citext: FOREIGN TABLE app.remote
-- extension member citext: MATERIALIZED VIEW app.counts
-- extension member citext: OPERATOR app.=== (app.place, app.place)
-- extension member citext: OPERATOR FAMILY app.extra USING btree
-- extension member citext: PROCEDURE app.tidy(INOUT n integer)
-- extension member citext: FUNCTION app.touch()
-- extension member citext: SEQUENCE app.loose
ALTER EXTENSION citext ADD AGGREGATE app.total(int); ALTER EXTENSION citext ADD COLLATION app.german; ALTER EXTENSION citext ADD CONVERSION app.latin; ALTER EXTENSION citext ADD DOMAIN app.email; ALTER EXTENSION citext ADD FOREIGN TABLE app.remote; ALTER EXTENSION citext ADD MATERIALIZED VIEW app.counts; ALTER EXTENSION citext ADD OPERATOR app.=== (app.place, app.place); ALTER EXTENSION citext ADD OPERATOR FAMILY app.extra USING btree; ALTER EXTENSION citext ADD PROCEDURE app.tidy; ALTER EXTENSION citext ADD ROUTINE app.touch(); ALTER EXTENSION citext ADD SEQUENCE app.loose;
-- extension member citext: ACCESS METHOD heap2
-- extension member citext: EVENT TRIGGER watch
-- extension member citext: FOREIGN DATA WRAPPER hollow
-- extension member citext: SERVER afar
-- extension member citext: LANGUAGE plother
-- extension member citext: SCHEMA spare
-- extension member citext: TEXT SEARCH CONFIGURATION app.search
-- extension member citext: TEXT SEARCH DICTIONARY app.words
-- extension member citext: TEXT SEARCH PARSER app.splitter
-- extension member citext: TEXT SEARCH TEMPLATE app.simplest
-- extension member citext: TRANSFORM FOR app.addr LANGUAGE plother
ALTER EXTENSION citext ADD ACCESS METHOD heap2; ALTER EXTENSION citext ADD EVENT TRIGGER watch; ALTER EXTENSION citext ADD FOREIGN DATA WRAPPER hollow; ALTER EXTENSION citext ADD SERVER afar; ALTER EXTENSION citext ADD LANGUAGE plother; ALTER EXTENSION citext ADD SCHEMA spare; ALTER EXTENSION citext ADD TEXT SEARCH CONFIGURATION app.search; ALTER EXTENSION citext ADD TEXT SEARCH DICTIONARY app.words; ALTER EXTENSION citext ADD TEXT SEARCH PARSER app.splitter; ALTER EXTENSION citext ADD TEXT SEARCH TEMPLATE app.simplest; ALTER EXTENSION citext ADD TRANSFORM FOR app.addr LANGUAGE plother;
-- extension hstore
CREATE EXTENSION hstore WITH SCHEMA spare; CREATE FUNCTION app.thrice(n int) RETURNS int LANGUAGE sql RETURN n * 3; CREATE TABLE app.own (a int); ALTER EXTENSION hstore ADD FUNCTION app.thrice; ALTER EXTENSION hstore ADD TABLE app.own;
-- extension earthdistance
-- extension cube
CREATE EXTENSION earthdistance WITH SCHEMA spare CASCADE;
-- setting maintenance_work_mem
-- setting work_mem
-- setting DateStyle for role drift_reader
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET maintenance_work_mem FROM CURRENT', current_database()); EXECUTE format('ALTER ROLE ALL IN DATABASE %I SET work_mem = ''9MB''', current_database()); EXECUTE format('ALTER USER drift_reader IN DATABASE %I SET datestyle = ''ISO, DMY''', current_database()); EXECUTE format('GRANT ALL ON DATABASE %I TO drift_leaver', current_database()); END $$;
