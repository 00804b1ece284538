//! Every built-in type and the kinds of a user's types, as text and as binary.

use super::pair::Pair;

/// A type and values of it that are easily broken on the way.
const TYPES: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767"]),
    ("integer", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("numeric", &["NaN", "Infinity", "-Infinity", "1.00", "1.0", "0.000000000000000000001", "-1e100"]),
    ("numeric(12,4)", &["12345678.1234", "0.0000"]),
    ("real", &["NaN", "-0", "1e-45", "3.4028235e38", "0.1"]),
    ("double precision", &["-Infinity", "-0", "5e-324", "0.1", "1.7976931348623157e308"]),
    ("money", &["-92233720368547758.08", "0.01"]),
    ("text", &["", "é\\\t\r\n\"'", "\\N", "\\.", "NULL"]),
    ("varchar(3)", &["abc", "", "a  "]),
    ("char(4)", &["a", "", "abcd"]),
    ("\"char\"", &["a", ""]),
    ("name", &["some name"]),
    ("bytea", &["\\x", "\\x00ff5c0a0d09"]),
    ("date", &["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"]),
    ("time", &["24:00:00", "00:00:00.000001"]),
    ("time(2)", &["12:34:56.78"]),
    ("timetz", &["12:34:56.789+05:30"]),
    ("timestamp", &["infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999"]),
    ("timestamptz", &["infinity", "-infinity", "2026-01-01 00:00:00.000001+14"]),
    ("interval", &["-178000000 years", "1 mon -1 day 00:00:00.000001", "0"]),
    ("uuid", &["00000000-0000-0000-0000-000000000001"]),
    ("json", &["{\"b\": 1, \"a\":  2, \"b\": 3}", "\"\\u00e9\"", "null"]),
    ("jsonb", &["{\"b\": 1.00, \"a\": [null]}", "null"]),
    ("jsonpath", &["$.a[*] ? (@ > 1)"]),
    ("xml", &["<a>é</a>", "text"]),
    ("bit(5)", &["10101"]),
    ("bit varying", &["", "1010111010101"]),
    ("inet", &["::1/64", "10.0.0.1"]),
    ("cidr", &["10.0.0.0/8"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    ("point", &["(1,-0)", "(NaN,Infinity)"]),
    ("line", &["{1,2,3}"]),
    ("lseg", &["[(1,2),(3,4)]"]),
    ("box", &["(3,4),(1,2)"]),
    ("path", &["((1,2),(3,4))", "[(1,2)]"]),
    ("polygon", &["((1,2),(3,4),(5,6))"]),
    ("circle", &["<(1,2),3>"]),
    ("tsvector", &["'a':1A 'b':2"]),
    ("tsquery", &["'a' & !'b'"]),
    ("int4range", &["empty", "[1,5)", "(,)"]),
    ("int8multirange", &["{}", "{[1,3),[5,9)}"]),
    ("numrange", &["[1.0,2.00]"]),
    ("tstzrange", &["[2026-01-01,infinity)"]),
    ("datemultirange", &["{[2026-01-01,2026-02-01)}"]),
    ("oid", &["4294967295"]),
    ("xid", &["3"]),
    ("xid8", &["18446744073709551615"]),
    ("cid", &["7"]),
    ("tid", &["(1,2)"]),
    ("pg_lsn", &["FFFFFFFF/FFFFFFFF"]),
    ("pg_snapshot", &["10:20:10,14,15"]),
    ("txid_snapshot", &["10:20:10"]),
    ("aclitem", &["postgres=arwd/postgres"]),
    ("int4[]", &["{}", "{1,NULL,3}", "[2:3]={4,5}", "{{1,2},{3,4}}"]),
    ("text[]", &["{\"a,b\",\"\",NULL,\"NULL\"}"]),
    ("numeric[]", &["{1.00,NaN}"]),
    ("mood", &["happy", "so so"]),
    ("mood[]", &["{happy,\"so so\"}"]),
    ("small", &["7"]),
    ("small[]", &["{1,2}"]),
    ("pair", &["(1,\"a,b\")", "(,)"]),
    ("pair[]", &["{\"(1,x)\",NULL}"]),
    ("floats", &["[1.5,2.5]"]),
    ("floats_many", &["{[1,2],[3,4]}"]),
];

/// Those that name objects: `text_only_columns` says that they are not to be sent as binary.
const NAMES: &[(&str, &[&str])] =
    &[("regclass", &["pg_class"]), ("regtype", &["integer"]), ("regproc", &["now"]), ("regrole", &["postgres"])];

async fn survive(types: &[(&str, &[&str])], binary: bool) {
    let columns: Vec<String> = types.iter().enumerate().map(|(at, (name, _))| format!("c{at} {name}")).collect();
    let mut pair = Pair::new(&format!(
        "CREATE TYPE mood AS ENUM ('happy', 'so so'); CREATE DOMAIN small AS int CHECK (VALUE < 10);
         CREATE TYPE pair AS (a int, b text);
         CREATE TYPE floats AS RANGE (subtype = float8, multirange_type_name = floats_many);
         CREATE TABLE one (id int PRIMARY KEY, {columns}); CREATE TABLE whole ({columns});
         ALTER TABLE whole REPLICA IDENTITY FULL",
        columns = columns.join(", ")
    ))
    .await;
    pair.binary = binary;
    let mut applier = pair.open().await;
    let most = types.iter().map(|(_, values)| values.len()).max().unwrap();
    let mut statements = vec!["INSERT INTO one (id) VALUES (-1), (-2)".to_owned()];
    for row in 0..most {
        let values: Vec<String> =
            types.iter().map(|(_, values)| format!("'{}'", values[row % values.len()].replace('\'', "''"))).collect();
        statements.push(format!("INSERT INTO one VALUES ({row}, {})", values.join(", ")));
        statements.push(format!("INSERT INTO whole VALUES ({})", values.join(", ")));
    }
    let all: Vec<&str> = statements.iter().map(String::as_str).collect();
    pair.carries(&mut applier, &all).await;
    // Now by way of updates and deletions.
    let (names, values): (Vec<String>, Vec<String>) =
        (0..types.len()).map(|at| (format!("c{at}"), format!("s.c{at}"))).unzip();
    let update = format!(
        "UPDATE one SET ({}) = (SELECT {} FROM one AS s WHERE s.id = (one.id + 3) % {most}) WHERE id <> -2",
        names.join(", "),
        values.join(", ")
    );
    pair.carries(&mut applier, &[&update, "DELETE FROM whole WHERE ctid < '(0,3)'", "UPDATE whole SET c0 = NULL"])
        .await;
}

#[tokio::test]
async fn values_of_every_type_survive_as_text() {
    survive(TYPES, false).await;
    survive(NAMES, false).await;
}

#[tokio::test]
async fn values_of_every_type_survive_as_binary() {
    survive(TYPES, true).await;
}

/// A table of one column and a key for each type: what is not sent as binary must not spoil the others.
#[tokio::test]
async fn keys_of_many_types_find_their_rows() {
    let types: &[(&str, &[&str])] = &[
        ("text COLLATE \"C\"", &["a", "b", "'"]),
        ("numeric", &["1.5", "NaN", "2"]),
        ("uuid", &["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"]),
        ("mood", &["happy", "so so"]),
        ("small", &["1", "2"]),
        ("bytea", &["\\x00", "\\x"]),
        ("date", &["infinity", "2026-01-01"]),
        ("int[]", &["{1,2}", "{}"]),
        ("pair", &["(1,a)", "(2,b)"]),
        ("int4range", &["[1,2)", "empty"]),
        ("char(3)", &["a", "b"]),
        ("ci", &["Word", "other"]),
    ];
    let mut tables = "CREATE TYPE mood AS ENUM ('happy', 'so so'); CREATE DOMAIN small AS int;
        CREATE TYPE pair AS (a int, b text);
        CREATE COLLATION fold (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE DOMAIN ci AS text COLLATE fold;"
        .to_owned();
    let mut insertions = Vec::new();
    let mut changes = Vec::new();
    for (at, (name, values)) in types.iter().enumerate() {
        tables.push_str(&format!("CREATE TABLE k{at} (id {name} PRIMARY KEY, n int);"));
        for value in *values {
            insertions.push(format!("INSERT INTO k{at} VALUES ('{}', 0)", value.replace('\'', "''")));
        }
        changes.push(format!("UPDATE k{at} SET n = n + 1"));
        changes.push(format!("DELETE FROM k{at} WHERE ctid = (SELECT min(ctid) FROM k{at})"));
    }
    for binary in [true, false] {
        let mut pair = Pair::new(&tables).await;
        pair.binary = binary;
        let mut applier = pair.open().await;
        for work in [&insertions, &changes] {
            let statements: Vec<&str> = work.iter().map(String::as_str).collect();
            pair.carries(&mut applier, &statements).await;
        }
    }
}

#[tokio::test]
async fn types_of_extensions_survive() {
    let available = super::cluster().await;
    let session = pgrunbook_postgres::Session::connect(&available.options(), "test").await.unwrap();
    let found = session.value("SELECT count(*) FROM pg_available_extensions WHERE name IN ('citext', 'hstore')").await;
    if found.unwrap() != "2" {
        return; // This server came without contrib.
    }
    for binary in [true, false] {
        let mut pair = Pair::new(
            "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext;
             CREATE TABLE e (word ext.citext PRIMARY KEY, map ext.hstore, maps ext.hstore[])",
        )
        .await;
        pair.binary = binary;
        let mut applier = pair.open().await;
        pair.carries(
            &mut applier,
            &[
                "INSERT INTO e VALUES ('Word', 'a=>1, b=>NULL', '{a=>1}'), ('two', '', '{}')",
                "UPDATE e SET map = 'c=>\"x y\"'; UPDATE e SET word = 'WORD' WHERE word = 'word'",
                "UPDATE e SET map = NULL WHERE word = 'word'; DELETE FROM e WHERE word = 'TWO'",
            ],
        )
        .await;
    }
}
