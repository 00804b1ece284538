//! What a person accepts of a changed table: what is offered for it, and that both sides are equal after it.

use pgrunbook_engine::RunEnd;
use pgrunbook_steps::transfer::{go_on, offer};

use crate::bench::failure;
use crate::transfer::{GO, MOVE, Move};

const HEAD: &str = "```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n";

/// A change at the source, and what becomes of it.
struct Case {
    /// What it is, for whoever reads a failure.
    what: &'static str,
    /// At the source, each as a transaction.
    change: &'static [&'static str],
    /// A row that the source writes then, which stops the stream; without it the change is found when it is asked for.
    write: Option<&'static str>,
    /// What is offered; one that ends in `...` is compared up to there.
    offered: &'static [&'static str],
    /// What a person gives instead.
    instead: Option<&'static str>,
    /// What the lines for people say is to be done afterwards: at the source, and at the target.
    afterwards: [&'static str; 2],
}

const PLAIN: Case = Case { what: "", change: &[], write: None, offered: &[], instead: None, afterwards: ["", ""] };

const VISIT: Option<&str> = Some("INSERT INTO visit (what) VALUES ('streamed')");

const CASES: &[Case] = &[
    Case {
        what: "a default, and a row that stops the stream",
        change: &["ALTER TABLE visit ADD COLUMN place text DEFAULT 'it''s home'"],
        write: VISIT,
        offered: &["ALTER TABLE health.visit ADD COLUMN place text DEFAULT 'it''s home'::text"],
        ..PLAIN
    },
    Case {
        what: "a default, and no row",
        change: &[
            "ALTER TABLE visit ADD COLUMN stars int NOT NULL DEFAULT 5, ADD COLUMN ok boolean NOT NULL DEFAULT false",
        ],
        offered: &[
            "ALTER TABLE health.visit ADD COLUMN stars integer NOT NULL DEFAULT 5",
            "ALTER TABLE health.visit ADD COLUMN ok boolean NOT NULL DEFAULT false",
        ],
        ..PLAIN
    },
    Case {
        what: "a default that became another",
        change: &[
            "ALTER TABLE visit ADD COLUMN kind varchar(9) DEFAULT 'old', ADD COLUMN tags text[] DEFAULT '{a,\"b c\"}'",
            "ALTER TABLE visit ALTER COLUMN kind SET DEFAULT 'new', ALTER COLUMN tags DROP DEFAULT",
        ],
        write: VISIT,
        offered: &[
            "ALTER TABLE health.visit ADD COLUMN kind character varying(9) DEFAULT 'old'::character varying(9)",
            "ALTER TABLE health.visit ALTER COLUMN kind SET DEFAULT 'new'::character varying",
            "ALTER TABLE health.visit ADD COLUMN tags text[] DEFAULT '{a,\"b c\"}'::text[]",
            "ALTER TABLE health.visit ALTER COLUMN tags DROP DEFAULT",
        ],
        ..PLAIN
    },
    Case {
        what: "a default that was evaluated once",
        change: &["ALTER TABLE visit ADD COLUMN seen timestamptz DEFAULT now()"],
        write: VISIT,
        offered: &[
            "ALTER TABLE health.visit ADD COLUMN seen timestamp with time zone DEFAULT '20...",
            "ALTER TABLE health.visit ALTER COLUMN seen SET DEFAULT now()",
        ],
        ..PLAIN
    },
    Case {
        what: "a default that is another for every row",
        change: &["ALTER TABLE visit ADD COLUMN code uuid DEFAULT gen_random_uuid()"],
        write: VISIT,
        offered: &[
            "-- health.visit: what the rows of before hold in code no catalog tells: where it is not NULL, send them once the \
             stream goes on: UPDATE public.visit SET code = code",
            "ALTER TABLE health.visit ADD COLUMN code uuid",
            "ALTER TABLE health.visit ALTER COLUMN code SET DEFAULT gen_random_uuid()",
        ],
        afterwards: ["UPDATE public.visit SET code = code", ""],
        ..PLAIN
    },
    Case {
        what: "a default that names a function",
        change: &["ALTER TABLE visit ADD COLUMN many int DEFAULT public.seven()"],
        write: VISIT,
        offered: &[
            "-- health.visit: its default names what may not be there: afterwards, ALTER TABLE health.visit ALTER COLUMN many SET \
             DEFAULT health.seven()",
            "ALTER TABLE health.visit ADD COLUMN many integer DEFAULT '7'::integer",
            "ALTER TABLE health.visit ALTER COLUMN many DROP DEFAULT",
        ],
        afterwards: ["", "ALTER TABLE health.visit ALTER COLUMN many SET DEFAULT health.seven()"],
        ..PLAIN
    },
    Case {
        what: "an identity column",
        change: &["ALTER TABLE note ADD COLUMN serial int GENERATED ALWAYS AS IDENTITY"],
        offered: &[
            "-- health.note: what the rows of before hold in serial no catalog tells: where it is not NULL, send them once the \
             stream goes on: UPDATE public.note SET visit = visit",
            "-- health.note: serial is an identity column: afterwards, ALTER TABLE health.note ALTER COLUMN serial SET NOT NULL, \
             ALTER COLUMN serial ADD GENERATED ALWAYS AS IDENTITY",
            "ALTER TABLE health.note ADD COLUMN serial integer",
        ],
        afterwards: [
            "UPDATE public.note SET visit = visit",
            "ALTER TABLE health.note ALTER COLUMN serial SET NOT NULL, ALTER COLUMN serial ADD GENERATED ALWAYS AS IDENTITY",
        ],
        ..PLAIN
    },
    Case {
        what: "NOT NULL of a column that was there",
        change: &["ALTER TABLE visit ALTER COLUMN at SET NOT NULL"],
        instead: Some("ALTER TABLE health.visit ALTER COLUMN at SET NOT NULL"),
        ..PLAIN
    },
    Case {
        what: "a generated column",
        change: &["ALTER TABLE note ADD COLUMN twice int GENERATED ALWAYS AS (n * 2) STORED"],
        offered: &["-- health.note: the generated column twice came: write it yourself"],
        instead: Some("ALTER TABLE health.note ADD COLUMN twice int GENERATED ALWAYS AS (n * 2) STORED"),
        ..PLAIN
    },
    Case {
        what: "another type",
        change: &["ALTER TABLE note ALTER COLUMN text TYPE varchar(99)"],
        write: Some("INSERT INTO note VALUES (1, 9, 'streamed')"),
        offered: &[
            "ALTER TABLE health.note ALTER COLUMN text TYPE character varying(99) USING text::character varying(99)",
        ],
        ..PLAIN
    },
    Case {
        what: "another name",
        change: &["ALTER TABLE note RENAME COLUMN text TO body"],
        write: Some("INSERT INTO note (visit, n, body) VALUES (2, 9, 'streamed')"),
        offered: &[
            "-- health.note: text went and body came: if that was a renaming, write ALTER TABLE health.note RENAME COLUMN yourself",
        ],
        instead: Some("ALTER TABLE health.note RENAME COLUMN text TO body"),
        ..PLAIN
    },
    Case {
        what: "a column that went",
        change: &["ALTER TABLE visit DROP COLUMN place"],
        write: VISIT,
        offered: &["ALTER TABLE health.visit DROP COLUMN place"],
        ..PLAIN
    },
    Case {
        what: "a partitioned table",
        change: &["ALTER TABLE event ADD COLUMN place text NOT NULL DEFAULT 'hall'"],
        write: Some("INSERT INTO event VALUES (3), (13)"),
        offered: &["ALTER TABLE health.event ADD COLUMN place text NOT NULL DEFAULT 'hall'::text"],
        ..PLAIN
    },
    Case {
        what: "NOT NULL without a default",
        change: &[
            "ALTER TABLE visit ADD COLUMN must int",
            "UPDATE visit SET must = id",
            "ALTER TABLE visit ALTER COLUMN must SET NOT NULL",
        ],
        write: Some("UPDATE visit SET must = 0 WHERE id = 1"),
        offered: &[
            "-- health.visit: must is NOT NULL there: its rows come with the stream; afterwards, ALTER TABLE health.visit ALTER \
             COLUMN must SET NOT NULL",
            "ALTER TABLE health.visit ADD COLUMN must integer",
        ],
        afterwards: ["", "ALTER TABLE health.visit ALTER COLUMN must SET NOT NULL"],
        ..PLAIN
    },
];

const MORE: &str = "CREATE FUNCTION seven() RETURNS int LANGUAGE sql STABLE AS 'SELECT 7';
    CREATE TABLE event (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE event_few PARTITION OF event FOR VALUES FROM (0) TO (10);
    CREATE TABLE event_many PARTITION OF event FOR VALUES FROM (10) TO (100);
    INSERT INTO event VALUES (1), (11), (12)";

const TOUCH: &str = "UPDATE visit SET what = what WHERE id = 1; UPDATE note SET n = n WHERE visit = 1; UPDATE event SET id = id WHERE id = 1";

/// All rows of all tables, each column by its name.
const SEEN: &str = "SELECT (SELECT jsonb_agg(to_jsonb(t) ORDER BY id) FROM visit AS t)::text
    || (SELECT jsonb_agg(to_jsonb(t) ORDER BY visit, n) FROM note AS t)::text
    || (SELECT jsonb_agg(to_jsonb(t) ORDER BY id) FROM event AS t)::text";

impl Case {
    fn is_offered(&self, statements: &[String]) {
        let told: Vec<&String> =
            statements.iter().filter(|one| !one.contains(" is `") && !one.contains("came: `")).collect();
        let alike = |(wanted, told): (&&str, &&String)| match wanted.strip_suffix("...") {
            Some(begin) => told.starts_with(begin),
            None => wanted == told,
        };
        let found: Vec<&&String> = told.iter().take(self.offered.len()).collect();
        let is_alike = found.len() == self.offered.len() && self.offered.iter().zip(found.iter().copied()).all(alike);
        assert!(is_alike, "{}: {statements:#?}", self.what);
        let rest = &told[self.offered.len()..];
        assert!(rest.iter().all(|line| line.starts_with("-- ")), "{}: {statements:#?}", self.what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_of_a_changed_table_makes_both_sides_equal() {
    let this = Move::new().await;
    this.at_legacy(MORE).await;
    let (_, end) = this.bench.run(MOVE).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let follow = format!(
        "# Follow\n\n{HEAD}## Go\n\n```toml step\nfollow = \"on\"\ntarget = \"main\"\nschema = \"health\"\n```\n"
    );
    let workplace = this.bench.workplace().await;
    for case in CASES {
        for sql in case.change {
            this.at_legacy(sql).await;
        }
        if let Some(sql) = case.write {
            this.at_legacy(sql).await;
            let (_, end) = this.bench.run(&follow).await;
            assert!(matches!(end, RunEnd::Failed { .. }), "{}: {end:?}", case.what);
            assert_eq!(failure(&end).1, "stream-ddl", "{}: {end:?}", case.what);
        }
        let told = offer(&workplace, "main", "health").await.unwrap().unwrap();
        case.is_offered(&told.statements);
        let instead = case.instead.map(|sql| vec![sql.to_owned()]);
        go_on(&workplace, "main", "health", instead.as_deref()).await.unwrap();
        this.at_legacy(case.afterwards[0]).await;
        // A stream that was accepted knows a table again from the next change of it on.
        this.at_legacy(TOUCH).await;
        let (_, end) = this.bench.run(&follow).await;
        assert!(matches!(end, RunEnd::Completed), "{}: {end:?}", case.what);
        this.bench.execute(case.afterwards[1]).await;
        let there = this.legacy_value(&format!("SET TimeZone = 'UTC'; SET search_path = public; {SEEN}")).await;
        let here = this.bench.value(&format!("SET TimeZone = 'UTC'; SET search_path = health; {SEEN}")).await;
        assert!(there == here, "{}:\n{there}\n{here}", case.what);
    }
    // Nothing is altered on one side alone by now, and every row is proven equal.
    let (_, end) = this.bench.run(&format!("# Go\n\n{HEAD}{GO}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    for row in ["INSERT INTO health.visit (what, must) VALUES ('after', 1)", "INSERT INTO health.event VALUES (4)"] {
        this.bench.execute(row).await;
    }
    let defaults = "SELECT stars || kind || ok || many || (SELECT place FROM health.event WHERE id = 4) FROM health.visit WHERE what = 'after'";
    assert_eq!(this.bench.value(defaults).await, "5newfalse7hall", "the target's own defaults");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_there_names_what_can_be_typed() {
    let this = Move::new().await;
    let (_, end) = this.bench.run(MOVE).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.at_legacy("ALTER TABLE note ALTER COLUMN text TYPE varchar(99)").await;
    let workplace = this.bench.workplace().await;
    let wrong = ["ALTER TABLE health.nothing ADD COLUMN a int".to_owned()];
    let error = go_on(&workplace, "main", "health", Some(&wrong)).await.unwrap_err();
    assert_eq!(error.code, "accept");
    assert_eq!(
        error.help.unwrap(),
        "make the change there yourself, then `pgrunbook transfer accept health --target main --yes`; or give the statements: \
         `pgrunbook transfer accept health --target main --yes` with `--instead SQL`, once for each"
    );
}
