-- foreign table app.far
CREATE FOREIGN TABLE app.far (id bigint OPTIONS (column_name 'i') NOT NULL, t text COLLATE "C" DEFAULT 'd', g int GENERATED ALWAYS AS (id * 2) STORED, CONSTRAINT small CHECK (id < 9)) SERVER afar OPTIONS (table_name 'f'); COMMENT ON COLUMN app.far.t IS 'c'; GRANT SELECT ON app.far TO drift_reader; CREATE TRIGGER far BEFORE INSERT ON app.far FOR EACH ROW EXECUTE FUNCTION app.touch();
-- foreign table app.far_child
-- foreign table app.far_part
CREATE FOREIGN TABLE app.far_child (z int) INHERITS (app.parent) SERVER afar; CREATE FOREIGN TABLE app.far_part PARTITION OF app.events FOR VALUES FROM ('2027-01-01') TO ('2027-02-01') SERVER afar OPTIONS (table_name 'p');
-- foreign table app.remote
DROP FOREIGN TABLE app.remote;
-- foreign table app.remote
CREATE SERVER near FOREIGN DATA WRAPPER hollow; DROP FOREIGN TABLE app.remote; CREATE FOREIGN TABLE app.remote (id int OPTIONS (column_name 'i'), t text) SERVER near OPTIONS (table_name 'r');
-- not null app.remote.t
-- default app.remote.t
-- storage app.remote.t
-- statistics target app.remote.t
-- option app.remote.t: n_distinct
-- constraint small on app.remote
ALTER FOREIGN TABLE app.remote ALTER t SET NOT NULL, ALTER t SET DEFAULT 'd', ALTER t SET STORAGE EXTERNAL, ALTER t SET STATISTICS 5, ALTER t SET (n_distinct = 3), ADD CONSTRAINT small CHECK (id < 9);
-- column app.remote.t
-- column app.remote.s
-- inheritance app.remote from app.far_parent
CREATE TABLE app.far_parent (id int); ALTER FOREIGN TABLE app.remote INHERIT app.far_parent; ALTER FOREIGN TABLE app.remote RENAME t TO s;
-- trigger far on app.remote
CREATE TRIGGER far BEFORE INSERT ON app.remote FOR EACH ROW EXECUTE FUNCTION app.touch(); ALTER FOREIGN TABLE app.remote DISABLE TRIGGER far;
-- shell type app.hollow
CREATE TYPE app.hollow; ALTER TYPE app.hollow OWNER TO drift_owner; COMMENT ON TYPE app.hollow IS 'h';
-- base type app.grain
ALTER TYPE app.grain SET (RECEIVE = app.grain_recv, STORAGE = extended);
-- base type app.grain
DROP TYPE app.grain CASCADE; CREATE TYPE app.grain; CREATE FUNCTION app.grain_in(cstring) RETURNS app.grain LANGUAGE internal IMMUTABLE STRICT AS 'byteain'; CREATE FUNCTION app.grain_as_text(app.grain) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'byteaout'; CREATE FUNCTION app.grain_recv(internal) RETURNS app.grain LANGUAGE internal IMMUTABLE STRICT AS 'bytearecv'; CREATE TYPE app.grain (INPUT = app.grain_in, OUTPUT = app.grain_as_text, STORAGE = external, CATEGORY = 'X', DELIMITER = ';');
-- goes with extension FUNCTION app.twice(n integer) with citext
-- goes with extension PROCEDURE app.tidy(INOUT n integer) with citext
-- goes with extension INDEX app.people_lower with citext
-- goes with extension INDEX app.people_pkey with citext
-- goes with extension MATERIALIZED VIEW app.counts with btree_gist
-- goes with extension TRIGGER touched ON app.people with btree_gist
ALTER FUNCTION app.twice DEPENDS ON EXTENSION citext; ALTER PROCEDURE app.tidy DEPENDS ON EXTENSION citext; ALTER INDEX app.people_lower DEPENDS ON EXTENSION citext; ALTER INDEX app.people_pkey DEPENDS ON EXTENSION citext; ALTER MATERIALIZED VIEW app.counts DEPENDS ON EXTENSION btree_gist; ALTER TRIGGER touched ON app.people DEPENDS ON EXTENSION btree_gist;
-- extension member citext: FUNCTION app.twice(n integer)
-- extension member citext: TYPE app.span
-- extension member citext: TABLE app.bystander
-- extension member citext: CAST (app.place AS text)
-- extension member citext: OPERATOR CLASS app.backwards USING btree
-- extension member citext: VIEW app.grown_names
ALTER EXTENSION citext ADD FUNCTION app.twice(int); ALTER EXTENSION citext ADD TYPE app.span; ALTER EXTENSION citext ADD TABLE app.bystander; ALTER EXTENSION citext ADD CAST (app.place AS text); ALTER EXTENSION citext ADD OPERATOR CLASS app.backwards USING btree; ALTER EXTENSION citext ADD VIEW app.grown_names;
-- extension member citext: FUNCTION app.thrice(n integer)
-- extension member citext: TABLE app.own
CREATE FUNCTION app.thrice(n int) RETURNS int LANGUAGE sql RETURN n * 3; CREATE TABLE app.own (a int); ALTER EXTENSION citext ADD FUNCTION app.thrice; ALTER EXTENSION citext ADD TABLE app.own;
-- extension member citext: FUNCTION app.citext_eq(app.citext, app.citext)
ALTER EXTENSION citext DROP FUNCTION app.citext_eq(app.citext, app.citext);
-- extension hstore
CREATE EXTENSION hstore WITH SCHEMA spare; CREATE TABLE app.hots (h spare.hstore); CREATE FUNCTION app.cold() RETURNS int LANGUAGE sql RETURN 1; ALTER FUNCTION app.cold DEPENDS ON EXTENSION hstore;
-- extension btree_gist
ALTER TABLE app.notes DROP CONSTRAINT apart; DROP EXTENSION btree_gist;
-- schema spare2
-- schema spare
ALTER SCHEMA spare RENAME TO spare2;
-- schema stocked
CREATE SCHEMA stocked; CREATE TYPE stocked.mood AS ENUM ('a'); CREATE TABLE stocked.goods (id serial PRIMARY KEY, m stocked.mood DEFAULT 'a') PARTITION BY RANGE (id); CREATE TABLE stocked.goods_1 PARTITION OF stocked.goods DEFAULT; CREATE VIEW stocked.seen AS SELECT id FROM stocked.goods; CREATE FUNCTION stocked.f(m stocked.mood) RETURNS int LANGUAGE sql RETURN 1; GRANT USAGE ON SCHEMA stocked TO drift_reader;
-- schema given
CREATE SCHEMA given AUTHORIZATION drift_owner;
-- table app.strangers
-- table app.bystander
ALTER TABLE app.bystander RENAME TO strangers;
-- table spare.notes
-- table app.notes
ALTER TABLE app.notes SET SCHEMA spare;
-- column app.people.handle
-- column app.people.nick
ALTER TABLE app.people RENAME COLUMN nick TO handle;
-- constraint grown_up on app.people
-- constraint adult on app.people
-- constraint unique_name on app.people
ALTER TABLE app.people RENAME CONSTRAINT adult TO grown_up; ALTER TABLE app.people RENAME CONSTRAINT one_name TO unique_name;
-- index app.people_small
-- index app.people_lower
ALTER INDEX app.people_lower RENAME TO people_small;
-- sequence app.numerals
-- sequence spare.loose
ALTER SEQUENCE app.numbers RENAME TO numerals; ALTER SEQUENCE app.loose SET SCHEMA spare;
-- view app.adults
-- view app.grown_names
ALTER VIEW app.grown RENAME TO adults; ALTER VIEW app.grown_names RENAME COLUMN name TO called;
-- view spare.grown_names
ALTER VIEW app.grown_names SET SCHEMA spare;
-- materialized view spare.tally
ALTER MATERIALIZED VIEW app.counts RENAME COLUMN count TO number; ALTER MATERIALIZED VIEW app.counts RENAME TO tally; ALTER MATERIALIZED VIEW app.tally SET SCHEMA spare;
-- tablespace app.counts
-- access method of a table app.counts
-- option app.counts: fillfactor
-- clustered on app.counts
-- statistics target app.counts.count
ALTER MATERIALIZED VIEW app.counts SET TABLESPACE drift_space; ALTER MATERIALIZED VIEW app.counts SET ACCESS METHOD heap2; ALTER MATERIALIZED VIEW app.counts SET (fillfactor = 60), CLUSTER ON counts_status, ALTER count SET STATISTICS 7;
-- function app.double(n integer)
-- function app.twice(n integer)
ALTER FUNCTION app.twice RENAME TO double;
-- function spare.place_text(p app.place)
-- procedure spare.clean(INOUT n integer)
-- aggregate spare.sum_up(integer)
ALTER FUNCTION app.place_text SET SCHEMA spare; ALTER PROCEDURE app.tidy RENAME TO clean; ALTER PROCEDURE app.clean SET SCHEMA spare; ALTER AGGREGATE app.total(int) RENAME TO sum_up; ALTER AGGREGATE app.sum_up(int) SET SCHEMA spare;
-- function app.twice(n integer)
ALTER FUNCTION app.twice STRICT SECURITY DEFINER LEAKPROOF STABLE PARALLEL RESTRICTED COST 5 SET work_mem = '1MB' SET search_path = app, pg_temp;
-- function app.touch()
ALTER ROUTINE app.touch() SET role = drift_reader;
-- function app.many(VARIADIC n integer[])
-- function app.windowed(bigint)
-- function app.pieces(a integer, OUT b integer, INOUT c text)
-- function app.placed(p app.place)
CREATE FUNCTION app.many(VARIADIC n int[] DEFAULT '{}') RETURNS SETOF app.place LANGUAGE sql ROWS 5 BEGIN ATOMIC SELECT 'x'::text, n[1]; SELECT 'y'::text, 2; END; CREATE FUNCTION app.windowed(bigint) RETURNS bigint LANGUAGE internal WINDOW AS 'window_row_number'; CREATE FUNCTION app.pieces(a int, OUT b int, INOUT c text) LANGUAGE plpgsql CALLED ON NULL INPUT AS $x$ BEGIN b := 1; END $x$; CREATE FUNCTION app.placed(p app.place) RETURNS text LANGUAGE sql SUPPORT textlike_support AS 'SELECT $1::text';
-- aggregate app.middle(double precision ORDER BY anyelement)
-- aggregate app.moving(integer)
CREATE AGGREGATE app.middle(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA); CREATE AGGREGATE app.moving(int) (SFUNC = int4pl, STYPE = int, MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, INITCOND = '0', MINITCOND = '0');
-- enum app.status
ALTER TYPE app.status RENAME VALUE 'open' TO 'opened';
-- enum app.status
ALTER TABLE app.people ALTER status DROP DEFAULT; DROP INDEX app.people_status; DROP VIEW app.grown_names, app.grown; DROP MATERIALIZED VIEW app.counts; DROP FUNCTION app.status_rank; ALTER TABLE app.people ALTER status TYPE text; DROP TYPE app.status; CREATE TYPE app.status AS ENUM ('open', 'done', 'new'); ALTER TABLE app.people ALTER status TYPE app.status USING status::app.status;
-- enum app.state
-- enum app.status
ALTER TYPE app.status RENAME TO state;
-- type app.place
ALTER TYPE app.place RENAME ATTRIBUTE street TO road CASCADE;
-- type app.point
ALTER TYPE app.point RENAME ATTRIBUTE x TO across;
-- type app.addr
ALTER TYPE app.addr ALTER ATTRIBUTE number TYPE bigint, DROP ATTRIBUTE street;
-- type spare.spot
ALTER TYPE app.point RENAME TO spot; ALTER TYPE app.spot SET SCHEMA spare;
-- domain spare.mail
ALTER DOMAIN app.email RENAME CONSTRAINT has_at TO at_sign; ALTER DOMAIN app.email RENAME TO mail; ALTER DOMAIN app.mail SET SCHEMA spare;
-- constraint has_at on domain app.email
ALTER DOMAIN app.email DROP CONSTRAINT has_at; ALTER DOMAIN app.email ADD CONSTRAINT has_at CHECK (VALUE LIKE '%@%') NOT VALID;
-- type app.names
-- type spare.span
CREATE TYPE app.names AS RANGE (SUBTYPE = text, SUBTYPE_OPCLASS = text_pattern_ops, COLLATION = "C", MULTIRANGE_TYPE_NAME = app.many_names); ALTER TYPE app.span SET SCHEMA spare;
-- collation spare.deutsch
-- conversion spare.latin1
ALTER COLLATION app.german RENAME TO deutsch; ALTER COLLATION app.deutsch SET SCHEMA spare; ALTER CONVERSION app.latin RENAME TO latin1; ALTER CONVERSION app.latin1 SET SCHEMA spare;
-- conversion app.usual
CREATE DEFAULT CONVERSION app.usual FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
-- operator spare.=== (app.place, app.place)
ALTER OPERATOR app.=== (app.place, app.place) SET SCHEMA spare;
-- operator app.<<< (integer, integer)
-- operator app.>>> (integer, integer)
CREATE OPERATOR app.<<< (FUNCTION = int4lt, LEFTARG = int, RIGHTARG = int, COMMUTATOR = OPERATOR(app.>>>), RESTRICT = scalarltsel, JOIN = scalarltjoinsel); CREATE OPERATOR app.>>> (FUNCTION = int4gt, LEFTARG = int, RIGHTARG = int, COMMUTATOR = OPERATOR(app.<<<)); CREATE OPERATOR app.==== (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int, COMMUTATOR = OPERATOR(app.====), HASHES, MERGES);
-- operator class spare.reverse USING btree
-- operator family spare.further USING btree
ALTER OPERATOR CLASS app.backwards USING btree RENAME TO reverse; ALTER OPERATOR CLASS app.reverse USING btree SET SCHEMA spare; ALTER OPERATOR FAMILY app.extra USING btree RENAME TO further; ALTER OPERATOR FAMILY app.further USING btree SET SCHEMA spare;
-- family member app.extra USING btree: function 1 (integer, bigint)
ALTER OPERATOR FAMILY app.extra USING btree ADD FUNCTION 1 btint48cmp(int4, int8);
-- operator class app.boxes USING gist
CREATE OPERATOR CLASS app.boxes FOR TYPE point USING gist AS OPERATOR 1 <<, FUNCTION 1 gist_point_consistent(internal, point, smallint, oid, internal), FUNCTION 2 gist_box_union(internal, internal), FUNCTION 5 gist_box_penalty(internal, internal, internal), FUNCTION 6 gist_box_picksplit(internal, internal), FUNCTION 7 gist_box_same(box, box, internal), STORAGE box;
-- cast (app.status AS bigint)
-- cast (app.place AS app.addr)
CREATE CAST (app.status AS bigint) WITH INOUT AS ASSIGNMENT; CREATE CAST (app.place AS app.addr) WITH INOUT AS IMPLICIT;
-- cast (app.email AS bytea)
CREATE FUNCTION app.email_bytes(app.email) RETURNS bytea LANGUAGE sql IMMUTABLE RETURN '\x00'::bytea; CREATE CAST (app.email AS bytea) WITH FUNCTION app.email_bytes(app.email);
-- language plrenamed
ALTER LANGUAGE plother RENAME TO plrenamed;
-- access method tree
CREATE ACCESS METHOD tree TYPE INDEX HANDLER bthandler;
-- event trigger watched
ALTER EVENT TRIGGER watch RENAME TO watched;
-- event trigger starts
CREATE EVENT TRIGGER starts ON ddl_command_start EXECUTE FUNCTION app.audit_ddl(); ALTER EVENT TRIGGER starts ENABLE ALWAYS;
-- text search parser spare.parse
-- text search template spare.pattern
-- text search dictionary spare.vocabulary
-- text search configuration spare.seek
CREATE TEXT SEARCH PARSER app.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, HEADLINE = prsd_headline, LEXTYPES = prsd_lextype); CREATE TEXT SEARCH TEMPLATE app.template (LEXIZE = dsimple_lexize); COMMENT ON TEXT SEARCH PARSER app.parser IS 'p'; COMMENT ON TEXT SEARCH TEMPLATE app.template IS 't'; ALTER TEXT SEARCH PARSER app.parser RENAME TO parse; ALTER TEXT SEARCH PARSER app.parse SET SCHEMA spare; ALTER TEXT SEARCH TEMPLATE app.template RENAME TO pattern; ALTER TEXT SEARCH TEMPLATE app.pattern SET SCHEMA spare; ALTER TEXT SEARCH DICTIONARY app.words RENAME TO vocabulary; ALTER TEXT SEARCH DICTIONARY app.vocabulary SET SCHEMA spare; ALTER TEXT SEARCH CONFIGURATION app.search RENAME TO seek; ALTER TEXT SEARCH CONFIGURATION app.seek SET SCHEMA spare;
-- text search mapping app.search for word
-- text search mapping app.search for asciiword
ALTER TEXT SEARCH CONFIGURATION app.search ALTER MAPPING REPLACE simple WITH app.words;
-- foreign-data wrapper shallow
-- foreign-data wrapper hollow
ALTER FOREIGN DATA WRAPPER hollow RENAME TO shallow;
-- server somewhere
-- foreign table app.remote
ALTER SERVER afar RENAME TO somewhere;
-- option user mapping FOR drift_reader SERVER afar: "user"
-- option user mapping FOR drift_reader SERVER afar: password
-- option user mapping FOR drift_reader SERVER afar: sslmode
ALTER USER MAPPING FOR drift_reader SERVER afar OPTIONS (SET "user" 'z', DROP password, ADD sslmode 'require');
-- column app.notes.id
ALTER TABLE app.notes ALTER id TYPE bigint;
-- identity app.people.id
ALTER TABLE app.people ALTER id DROP IDENTITY;
-- identity app.parent.a
ALTER TABLE app.parent ALTER a SET NOT NULL, ALTER a ADD GENERATED BY DEFAULT AS IDENTITY;
-- constraint ready on app.bystander
CREATE UNIQUE INDEX ready ON app.bystander (id) INCLUDE (a); ALTER TABLE app.bystander ALTER id SET NOT NULL, ADD CONSTRAINT ready PRIMARY KEY USING INDEX ready;
-- constraint paired on app.notes
-- constraint never on app.bystander
ALTER TABLE app.people ADD CONSTRAINT pair UNIQUE (id, age); ALTER TABLE app.notes ADD COLUMN age int; ALTER TABLE app.notes ADD CONSTRAINT paired FOREIGN KEY (person, age) REFERENCES app.people (id, age) MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL (age) DEFERRABLE INITIALLY DEFERRED NOT VALID; ALTER TABLE app.bystander ADD CONSTRAINT never EXCLUDE USING btree (id WITH =) WHERE (a > 1);
-- constraint events_fk on app.events
ALTER TABLE app.bystander ADD CONSTRAINT only_ids UNIQUE (id); ALTER TABLE app.events ADD CONSTRAINT events_fk FOREIGN KEY (n) REFERENCES app.bystander (id);
-- constraint events_pkey on app.events
ALTER TABLE app.events ADD CONSTRAINT events_pkey PRIMARY KEY (at);
-- constraint own_only on app.events_1
ALTER TABLE app.events_1 ADD CONSTRAINT own_only CHECK (n < 100), ADD CONSTRAINT own_key UNIQUE (n); CREATE INDEX own_index ON app.events_1 (what, n);
-- index app.events_n
CREATE INDEX events_n ON ONLY app.events (n); CREATE INDEX one_n ON app.events_1 (n); CREATE INDEX two_n ON app.events_2 (n); ALTER INDEX app.events_n ATTACH PARTITION app.one_n; ALTER INDEX app.events_n ATTACH PARTITION app.two_n;
-- table app.events_rest
-- partition app.events_1
CREATE TABLE app.events_rest (n int, what text DEFAULT 'x', at timestamptz NOT NULL); ALTER TABLE app.events ATTACH PARTITION app.events_rest DEFAULT; ALTER TABLE app.events DETACH PARTITION app.events_1;
-- type of table app.bystander
ALTER TABLE app.bystander DROP COLUMN b; ALTER PUBLICATION few DROP TABLE app.bystander; ALTER TABLE app.bystander OF app.ids;
-- unlogged app.loose
ALTER SEQUENCE app.loose SET UNLOGGED;
-- table app.fast
-- table app.made
CREATE UNLOGGED TABLE app.fast (a int) TABLESPACE drift_space; CREATE TABLE app.made USING heap2 AS SELECT 1 AS a, 'x'::text AS b; CREATE TABLE app.alike (LIKE app.people INCLUDING ALL);
-- tablespace app.events
ALTER TABLE app.events SET TABLESPACE drift_space;
-- index app.counts_status
ALTER INDEX app.counts_status SET (fillfactor = 60);
-- replica identity app.bystander
-- forced row security app.bystander
ALTER TABLE app.bystander REPLICA IDENTITY NOTHING, FORCE ROW LEVEL SECURITY;
-- firing trigger touched on app.people
-- firing rule quiet on app.bystander
-- firing event trigger watch
ALTER TABLE app.people ENABLE REPLICA TRIGGER touched; ALTER TABLE app.bystander ENABLE ALWAYS RULE quiet; ALTER EVENT TRIGGER watch ENABLE REPLICA;
-- trigger felt on app.people
-- rule silent on app.bystander
-- policy mine on app.people
ALTER TRIGGER touched ON app.people RENAME TO felt; ALTER RULE quiet ON app.bystander RENAME TO silent; ALTER POLICY own ON app.people RENAME TO mine;
-- trigger swept on app.people
-- trigger all_rows on app.people
-- trigger instead on app.grown
-- rule put on app.grown
CREATE TRIGGER swept AFTER TRUNCATE ON app.people EXECUTE FUNCTION app.touch(); CREATE TRIGGER all_rows AFTER UPDATE ON app.people REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION app.touch(); CREATE TRIGGER instead INSTEAD OF DELETE ON app.grown FOR EACH ROW EXECUTE FUNCTION app.touch(); CREATE RULE put AS ON INSERT TO app.grown DO INSTEAD INSERT INTO app.bystander (id) VALUES (NEW.id);
-- policy add on app.people
-- policy own on app.people
CREATE POLICY add ON app.people FOR INSERT TO drift_reader, drift_owner WITH CHECK (age > 1); ALTER POLICY own ON app.people TO PUBLIC;
-- statistics spare.stats
ALTER STATISTICS app.people_stats RENAME TO stats; ALTER STATISTICS app.stats SET SCHEMA spare;
-- index app.people_words
-- index app.people_brin
-- index app.people_unique
CREATE INDEX people_words ON app.people USING gin (to_tsvector('simple', name)) WITH (fastupdate = off); CREATE INDEX people_brin ON app.people USING brin (id) WITH (pages_per_range = 4); CREATE UNIQUE INDEX people_unique ON app.people (name COLLATE "C" text_pattern_ops, age DESC) NULLS NOT DISTINCT TABLESPACE drift_space WHERE age > 3;
-- publication fewer
ALTER PUBLICATION few RENAME TO fewer;
-- published table app.notes in few
-- published table app.people in few
ALTER PUBLICATION few ADD TABLE app.notes, app.people (id, name) WHERE (id > 3);
-- subscription renamed
ALTER SUBSCRIPTION from_afar RENAME TO renamed;
-- subscribed publications from_afar
-- subscription parameters from_afar
ALTER SUBSCRIPTION from_afar ADD PUBLICATION another WITH (refresh = false); ALTER SUBSCRIPTION from_afar SET (streaming = on, disable_on_error = true);
-- comment EXTENSION citext
-- comment INDEX app.people_pkey
-- comment COLUMN app.counts.status
-- comment COLUMN app.remote.id
CREATE FUNCTION app.from_place(internal) RETURNS internal LANGUAGE internal IMMUTABLE AS 'textin'; CREATE TRANSFORM FOR app.place LANGUAGE plother (FROM SQL WITH FUNCTION app.from_place(internal)); COMMENT ON TRANSFORM FOR app.place LANGUAGE plother IS 't'; COMMENT ON EXTENSION citext IS 'x'; COMMENT ON INDEX app.people_pkey IS 'k'; COMMENT ON COLUMN app.counts.status IS 'm'; COMMENT ON COLUMN app.remote.id IS 'f';
-- comment TYPE app.point
-- comment SEQUENCE app.people_id_seq
-- comment COLUMN app.place.street
COMMENT ON TYPE app.point IS 'c'; COMMENT ON SEQUENCE app.people_id_seq IS 'i'; COMMENT ON COLUMN app.place.street IS 's';
-- owner PROCEDURE app.tidy(INOUT n integer)
-- owner CONVERSION app.latin
-- owner OPERATOR CLASS app.backwards USING btree
-- owner OPERATOR FAMILY app.extra USING btree
-- owner TEXT SEARCH CONFIGURATION app.search
-- owner TEXT SEARCH DICTIONARY app.words
-- owner LANGUAGE plother
-- owner PUBLICATION few
-- owner FOREIGN DATA WRAPPER hollow
-- owner EVENT TRIGGER watch
-- owner SUBSCRIPTION from_afar
-- owner TYPE app.span
-- owner TYPE app.point
-- owner TYPE app.grain
ALTER PROCEDURE app.tidy OWNER TO drift_owner; ALTER CONVERSION app.latin OWNER TO drift_owner; ALTER OPERATOR CLASS app.backwards USING btree OWNER TO drift_owner; ALTER OPERATOR FAMILY app.extra USING btree OWNER TO drift_owner; ALTER TEXT SEARCH CONFIGURATION app.search OWNER TO drift_owner; ALTER TEXT SEARCH DICTIONARY app.words OWNER TO drift_owner; ALTER LANGUAGE plother OWNER TO drift_owner; ALTER PUBLICATION few OWNER TO drift_owner; ALTER FOREIGN DATA WRAPPER hollow OWNER TO drift_super; ALTER EVENT TRIGGER watch OWNER TO drift_super; ALTER SUBSCRIPTION from_afar OWNER TO drift_super; ALTER TYPE app.span OWNER TO drift_owner; ALTER TYPE app.point OWNER TO drift_owner; ALTER TYPE app.grain OWNER TO drift_owner;
-- grant TYPE app.email to PUBLIC
-- grant TYPE app.span to drift_reader
-- grant ROUTINE app.tidy(integer) to PUBLIC
-- grant TABLE app.grown to drift_reader
-- grant TABLE app.counts to drift_reader
-- grant TABLE app.remote to drift_reader
-- column grant TABLE app.grown (name) to drift_reader
REVOKE USAGE ON DOMAIN app.email FROM PUBLIC; GRANT USAGE ON TYPE app.span TO drift_reader WITH GRANT OPTION; REVOKE EXECUTE ON PROCEDURE app.tidy FROM PUBLIC; GRANT SELECT ON app.grown, app.counts, app.remote TO drift_reader; GRANT UPDATE (name) ON app.grown TO drift_reader;
-- default privileges SEQUENCES of drift_owner to drift_reader
-- default privileges TYPES of postgres to PUBLIC
-- default privileges TABLES of postgres IN SCHEMA spare to drift_reader
ALTER DEFAULT PRIVILEGES FOR ROLE drift_owner GRANT USAGE ON SEQUENCES TO drift_reader WITH GRANT OPTION; ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC; ALTER DEFAULT PRIVILEGES IN SCHEMA spare REVOKE SELECT ON TABLES FROM drift_reader;
