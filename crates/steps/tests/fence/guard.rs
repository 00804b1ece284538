//! What is refused, what passes, and what holds a fence up.

use std::time::{Duration, Instant};

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::Session;
use pgrunbook_steps::fence::{self, By, Fence, FenceError, Holder, Lift, Patience, Standing};

use super::{Legacy, MESSAGE, assert_refused, hasty, refused};

#[tokio::test]
async fn every_way_to_write_is_refused_with_the_message() {
    let legacy = Legacy::new().await;
    let fenced = legacy.set("every-way").await.unwrap();
    assert_eq!(fenced.tables, ["s.acct", "s.\"odd \"\"name\""]);
    assert_eq!(fenced.proof.holds(), Ok(()));
    assert!(fenced.marker <= fenced.lsn);

    let app = Session::connect(&legacy.as_app(), "app").await.unwrap();
    for session in [&legacy.session, &app] {
        for sql in [
            "INSERT INTO s.acct VALUES (1000, 0)",
            "INSERT INTO s.acct VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET n = 1",
            "UPDATE s.acct SET n = 1 WHERE id = 1",
            "UPDATE s.acct SET n = 1 WHERE false",
            "DELETE FROM s.acct",
            "TRUNCATE s.acct",
            "MERGE INTO s.acct USING (VALUES (1)) AS v(id) ON acct.id = v.id WHEN MATCHED THEN UPDATE SET n = 2",
            "WITH gone AS (DELETE FROM s.acct RETURNING id) SELECT count(*) FROM gone",
            "BEGIN READ WRITE; UPDATE s.acct SET n = 1",
        ] {
            assert_refused(session, sql).await;
            session.execute("ROLLBACK").await.unwrap();
        }
        session.execute("SELECT * FROM s.acct WHERE id = 1 FOR UPDATE").await.unwrap();
        let copy = Session::connect(session.options(), "copy").await.unwrap();
        let sink = copy.client().copy_in::<_, bytes::Bytes>("COPY s.acct FROM STDIN").await.unwrap();
        let error = std::pin::pin!(sink).finish().await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "25006", "COPY");
    }
    let (_, message) = refused(&app, "DELETE FROM s.acct").await;
    assert_eq!(message, MESSAGE.replace("{table}", "acct"));
    let (_, message) = refused(&app, "DELETE FROM s.\"odd \"\"name\"").await;
    assert_eq!(message, MESSAGE.replace("{table}", "odd \"name"));
}

#[tokio::test]
async fn writes_from_outside_the_schema_are_refused_too() {
    let legacy = Legacy::new().await;
    legacy
        .session
        .execute(
            "CREATE TABLE public.parent (id int PRIMARY KEY);
             INSERT INTO public.parent VALUES (1);
             CREATE TABLE s.child (id int REFERENCES public.parent ON DELETE CASCADE ON UPDATE CASCADE);
             INSERT INTO s.child VALUES (1);
             CREATE TABLE public.everything (t text, n int) PARTITION BY LIST (t);
             CREATE TABLE s.mine PARTITION OF public.everything FOR VALUES IN ('s');
             INSERT INTO public.everything VALUES ('s', 1);
             CREATE TABLE public.base (n int);
             CREATE TABLE s.derived () INHERITS (public.base);
             INSERT INTO s.derived VALUES (1);
             CREATE TABLE s.root (t text, n int) PARTITION BY LIST (t);
             CREATE TABLE public.leaf PARTITION OF s.root FOR VALUES IN ('x');
             CREATE VIEW public.seen AS SELECT * FROM s.acct;
             CREATE FUNCTION public.touch() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'UPDATE s.acct SET n = 7'",
        )
        .await
        .unwrap();
    let fenced = legacy.set("outside").await.unwrap();
    assert!(fenced.tables.contains(&"public.leaf".to_owned()), "{:?}", fenced.tables);
    for sql in [
        "DELETE FROM public.parent",
        "UPDATE public.parent SET id = 2",
        "TRUNCATE public.parent CASCADE",
        "INSERT INTO public.everything VALUES ('s', 2)",
        "UPDATE public.everything SET n = 2",
        "DELETE FROM public.everything",
        "TRUNCATE public.everything",
        "UPDATE public.base SET n = 2",
        "DELETE FROM public.base",
        "INSERT INTO public.leaf VALUES ('x', 1)",
        "INSERT INTO s.root VALUES ('x', 1)",
        "UPDATE public.seen SET n = 2",
        "SELECT public.touch()",
    ] {
        assert_refused(&legacy.session, sql).await;
    }
    // Others' rows go on; but a DELETE that could cascade into a fenced table is refused whether or not a row is there.
    legacy.session.execute("INSERT INTO public.parent VALUES (9)").await.unwrap();
    assert_refused(&legacy.session, "DELETE FROM public.parent WHERE id = 9").await;
    legacy.session.execute("INSERT INTO public.base VALUES (2)").await.unwrap();
    let rows =
        legacy.session.value("SELECT count(*) FROM s.child, s.mine, s.derived WHERE derived.n = 1").await.unwrap();
    assert_eq!(rows, "1");
    legacy.lift().await.unwrap();
    assert_eq!(legacy.triggers().await, "0");
    legacy.session.execute("DELETE FROM public.parent; DELETE FROM public.everything").await.unwrap();
}

#[tokio::test]
async fn what_no_trigger_stops_is_named() {
    let legacy = Legacy::new().await;
    legacy
        .session
        .execute(&format!(
            "CREATE SEQUENCE s.sq; SELECT lo_create(0);
             CREATE FUNCTION s.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER always AFTER UPDATE ON s.acct EXECUTE FUNCTION s.note();
             ALTER TABLE s.acct ENABLE ALWAYS TRIGGER always;
             CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
             CREATE FOREIGN TABLE s.abroad (id int) SERVER far;
             ALTER ROLE {} SET session_replication_role = replica",
            legacy.app
        ))
        .await
        .unwrap();
    let fenced = legacy.set("bypasses").await.unwrap();
    let named = fenced.proof.bypasses.join("\n");
    for wanted in ["foreign table s.abroad", "1 large object", "session_replication_role=replica"] {
        assert!(named.contains(wanted), "{wanted} is not in {named}");
    }
    // Values of sequences, large objects and the replica role pass, and so does what flows back.
    assert_eq!(legacy.session.value("SELECT nextval('s.sq')").await.unwrap(), "1");
    legacy.session.execute("SELECT lo_create(0)").await.unwrap();
    let back = legacy.connect("applier").await;
    back.execute("SET session_replication_role = replica; UPDATE s.acct SET n = 5 WHERE id = 1").await.unwrap();
    // DDL passes, and the proof finds what it opened.
    assert!(matches!(legacy.standing().await, Standing::Fenced(_)));
    for (sql, hole) in [
        ("CREATE TABLE s.later (id int)", "s.later"),
        ("ALTER TABLE s.acct DISABLE TRIGGER pgrunbook_fence", "s.acct"),
        ("DROP TRIGGER pgrunbook_fence ON s.\"odd \"\"name\"", "odd"),
    ] {
        legacy.session.execute(sql).await.unwrap();
        let why = fence::prove(&legacy.session, "s").await.unwrap().holds().unwrap_err().join("; ");
        assert!(why.contains(hole), "after {sql}: {why}");
        assert!(matches!(legacy.standing().await, Standing::Broken { .. }));
    }
    legacy.lift().await.unwrap();
    assert_eq!(legacy.standing().await, Standing::Unfenced);
    assert_eq!(legacy.triggers().await, "0");
}

#[tokio::test]
async fn open_transactions_with_old_snapshots_and_plans_do_not_slip_through() {
    let legacy = Legacy::new().await;
    let old = legacy.connect("old").await;
    old.execute("PREPARE w AS UPDATE s.acct SET n = n + 1 WHERE id = 1; EXECUTE w").await.unwrap();
    old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_catalog.pg_class").await.unwrap();
    legacy.set("old-snapshot").await.unwrap();
    assert_refused(&old, "EXECUTE w").await;
}

#[tokio::test]
async fn writer_in_the_way_is_named_and_nothing_is_changed() {
    let legacy = Legacy::new().await;
    let writer = Session::connect(&legacy.as_app(), "report").await.unwrap();
    writer.execute("BEGIN; UPDATE s.acct SET n = 1 WHERE id = 1").await.unwrap();
    let begun = Instant::now();
    let error = fence::fence(&legacy.session, &legacy.hasty("held"), &Cancel::default()).await.unwrap_err();
    let FenceError::Blocked { attempts: 2, holders, .. } = &error else { panic!("{error:?}") };
    let [Holder::Session { pid, user, application, state, query, .. }] = holders.as_slice() else {
        panic!("{error:?}")
    };
    assert_eq!(*pid, writer.backend_pid());
    assert_eq!(user.as_deref(), Some(legacy.app.as_str()));
    assert_eq!((application.as_deref(), state.as_deref()), (Some("report"), Some("idle in transaction")));
    assert!(query.as_deref().unwrap().contains("UPDATE s.acct SET n = 1"), "{query:?}");
    assert!(error.to_string().contains("Nothing was changed; writers go on."), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!((legacy.triggers().await.as_str(), legacy.standing().await), ("0", Standing::Unfenced));
    // Also where one wait might be longer than all of the time that there is.
    let patience = Patience::within(Duration::from_secs(60), Duration::from_millis(900));
    let short = Fence { patience, ..legacy.hasty("held") };
    let error = fence::fence(&legacy.session, &short, &Cancel::default()).await.unwrap_err();
    let FenceError::Blocked { holders, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(holders.as_slice(), [Holder::Session { pid, .. }] if *pid == writer.backend_pid()), "{error:?}");
    assert!(error.to_string().contains("not set: held up in 1 try within "), "{error}");
    // No lock is left behind.
    writer.execute("COMMIT").await.unwrap();
    writer.execute("UPDATE s.acct SET n = 2 WHERE id = 1").await.unwrap();
    legacy.set("held").await.unwrap();
}

#[tokio::test]
async fn prepared_transaction_in_the_way_is_named() {
    let legacy = Legacy::new().await;
    let gid = format!("gid {} it's", legacy.options.database);
    let quoted = gid.replace('\'', "''");
    let other = legacy.connect("other").await;
    other
        .execute(&format!("BEGIN; UPDATE s.acct SET n = 1 WHERE id = 2; PREPARE TRANSACTION '{quoted}'"))
        .await
        .unwrap();
    drop(other);
    let error = fence::fence(&legacy.session, &legacy.hasty("prepared"), &Cancel::default()).await.unwrap_err();
    let FenceError::Blocked { holders, .. } = &error else { panic!("{error:?}") };
    let [holder @ Holder::Prepared { gid: named, .. }] = holders.as_slice() else { panic!("{error:?}") };
    assert_eq!(*named, gid);
    assert_eq!(legacy.triggers().await, "0");
    assert!(holder.remedy().unwrap().contains(&quoted));
    legacy.session.execute(&format!("COMMIT PREPARED '{quoted}'")).await.unwrap();
    let fenced = legacy.set("prepared").await.unwrap();
    assert_eq!(fenced.proof.older, Vec::<String>::new());
    assert_eq!(legacy.session.value("SELECT n FROM s.acct WHERE id = 2").await.unwrap(), "1");
}

#[tokio::test]
async fn old_transaction_that_holds_a_writers_lock_breaks_the_proof() {
    let legacy = Legacy::new().await;
    // Older than the fence, and with a lock that it took in the replica role afterwards.
    let old = legacy.connect("old").await;
    old.execute("SET session_replication_role = replica; BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    legacy.set("older").await.unwrap();
    old.execute("UPDATE s.acct SET n = 1 WHERE id = 3").await.unwrap();
    let proof = fence::prove(&legacy.session, "s").await.unwrap();
    assert_eq!(proof.older, [format!("the transaction of pid {}", old.backend_pid())]);
    assert!(proof.holds().is_err());
    let gid = format!("late_{}", legacy.options.database);
    old.execute(&format!("PREPARE TRANSACTION '{gid}'")).await.unwrap();
    let proof = fence::prove(&legacy.session, "s").await.unwrap();
    assert_eq!(proof.older, [format!("the prepared transaction '{gid}'")]);
    legacy.session.execute(&format!("ROLLBACK PREPARED '{gid}'")).await.unwrap();
    assert_eq!(fence::prove(&legacy.session, "s").await.unwrap().holds(), Ok(()));
}

#[tokio::test]
async fn lifting_is_not_held_up_by_a_reader_and_can_be_repeated() {
    let legacy = Legacy::new().await;
    legacy.set("lift").await.unwrap();
    let reader = legacy.connect("reader").await;
    reader.execute("BEGIN; SELECT count(*) FROM s.acct").await.unwrap();
    let lifted = legacy.lift().await.unwrap();
    assert_eq!((lifted.id.as_deref(), lifted.left.as_slice()), (Some("lift"), ["s.acct".to_owned()].as_slice()));
    assert_eq!(legacy.standing().await, Standing::Unfenced);
    legacy.session.execute("UPDATE s.acct SET n = 3 WHERE id = 1").await.unwrap();
    // A new fence wakes what was left.
    legacy.set("lift-again").await.unwrap();
    assert_refused(&legacy.session, "UPDATE s.acct SET n = 3 WHERE id = 1").await;
    reader.execute("COMMIT").await.unwrap();
    legacy.lift().await.unwrap();
    assert_eq!(legacy.triggers().await, "0");
    assert!(legacy.lift().await.unwrap().is_nothing());
    assert!(matches!(legacy.set("lift").await, Err(FenceError::Used { .. })));
}

#[tokio::test]
async fn lift_that_is_held_up_leaves_the_fence_as_it_is() {
    let legacy = Legacy::new().await;
    legacy.set("stuck").await.unwrap();
    let back = legacy.connect("applier").await;
    back.execute("SET session_replication_role = replica; BEGIN; UPDATE s.acct SET n = 3 WHERE id = 1").await.unwrap();
    let lift = Lift { schema: "s", by: "anna", patience: hasty(), ..Lift::default() };
    let error = fence::unfence(&legacy.session, &lift, &Cancel::default()).await.unwrap_err();
    assert!(error.to_string().contains("not lifted") && error.to_string().contains("applier"), "{error}");
    assert!(matches!(legacy.standing().await, Standing::Fenced(_)));
    assert_refused(&legacy.session, "DELETE FROM s.acct").await;
}

#[tokio::test]
async fn half_a_fence_is_repaired_by_lifting() {
    let legacy = Legacy::new().await;
    legacy.set("half").await.unwrap();
    // Triggers without a record, and one that is gone.
    legacy.session.execute("DELETE FROM pgrunbook.fence; DROP TRIGGER pgrunbook_fence ON s.acct").await.unwrap();
    assert!(matches!(legacy.standing().await, Standing::Broken { held: None, .. }));
    legacy.lift().await.unwrap();
    assert_eq!((legacy.triggers().await.as_str(), legacy.standing().await), ("0", Standing::Unfenced));
}

#[tokio::test]
async fn of_two_operators_one_sets_the_fence() {
    let legacy = Legacy::new().await;
    let others = (legacy.connect("a").await, legacy.connect("b").await);
    let cancel = Cancel::default();
    let (a, b) = (legacy.wish("operator-a"), legacy.wish("operator-b"));
    let (first, second) = tokio::join!(fence::fence(&others.0, &a, &cancel), fence::fence(&others.1, &b, &cancel));
    let (won, lost) = match (first, second) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        other => panic!("{other:?}"),
    };
    assert!(matches!(&lost, FenceError::Held { id, .. } if *id == won.id), "{lost}");
    assert!(matches!(legacy.standing().await, Standing::Fenced(held) if held.id == won.id));
    let lift = Lift { schema: "s", id: Some("somebody-elses"), by: "eve", ..Lift::default() };
    let error = fence::unfence(&legacy.session, &lift, &cancel).await.unwrap_err();
    assert!(matches!(error, FenceError::Other { .. }), "{error}");
}

#[tokio::test]
async fn role_that_could_not_lift_it_sets_none() {
    let legacy = Legacy::new().await;
    let database = &legacy.options.database;
    legacy
        .session
        .execute(&format!(
            "GRANT TRIGGER ON ALL TABLES IN SCHEMA s TO {app}; GRANT CREATE ON DATABASE {database} TO {app}",
            app = legacy.app
        ))
        .await
        .unwrap();
    let app = Session::connect(&legacy.as_app(), "app").await.unwrap();
    let error = fence::fence(&app, &legacy.wish("not-mine"), &Cancel::default()).await.unwrap_err();
    assert!(
        matches!(&error, FenceError::NotOwner { tables, .. } if tables[0].contains("s.acct (of postgres)")),
        "{error}"
    );
    assert_eq!(legacy.triggers().await, "0");
}

#[tokio::test]
async fn privileges_are_taken_and_given_back_exactly() {
    let legacy = Legacy::new().await;
    let app = &legacy.app;
    legacy
        .session
        .execute(&format!(
            "CREATE ROLE {app}_friend; GRANT {app}_friend TO {app};
             GRANT INSERT (id) ON s.acct TO {app}_friend;
             GRANT DELETE ON s.acct TO {app} WITH GRANT OPTION;
             SET ROLE {app}; GRANT DELETE ON s.acct TO {app}_friend; RESET ROLE;
             CREATE TABLE s.owned (id int); ALTER TABLE s.owned OWNER TO {app}"
        ))
        .await
        .unwrap();
    let acl = format!("SELECT string_agg(line, E'\\n' ORDER BY line COLLATE \"C\") FROM ({ACL}) AS x");
    let before = legacy.session.value(&acl).await.unwrap();
    let session = Session::connect(&legacy.as_app(), "app").await.unwrap();
    let wish = Fence { by: By::Privileges, ..legacy.wish("weak") };
    let fenced = fence::fence(&legacy.session, &wish, &Cancel::default()).await.unwrap();
    assert!(fenced.weak && fenced.proof.holds().is_ok(), "{:?}", fenced.proof);
    for sql in ["DELETE FROM s.acct", "INSERT INTO s.acct VALUES (99)", "TRUNCATE s.owned", "UPDATE s.acct SET n = 1"] {
        let (sqlstate, _) = refused(&session, sql).await;
        assert_eq!(sqlstate, "42501", "{sql}");
    }
    session.execute("SELECT count(*) FROM s.acct").await.unwrap();
    assert_eq!(legacy.lift().await.unwrap().not_granted, Vec::<String>::new());
    assert_eq!(legacy.session.value(&acl).await.unwrap(), before);
    session.execute("DELETE FROM s.acct WHERE id = 1; TRUNCATE s.owned").await.unwrap();
}

/// One line for each entry of every ACL of the schema's tables and columns.
const ACL: &str =
    "SELECT concat_ws(' ', c.relname, e.grantor::regrole, e.grantee::regrole, e.privilege_type, e.is_grantable) AS line
     FROM pg_class AS c, aclexplode(coalesce(relacl, acldefault('r', relowner))) AS e
     WHERE relnamespace = 's'::regnamespace AND relkind = 'r'
     UNION ALL
     SELECT concat_ws(' ', t.attname, e.grantor::regrole, e.grantee::regrole, e.privilege_type, e.is_grantable)
     FROM pg_attribute AS t, aclexplode(t.attacl) AS e WHERE t.attrelid = 's.acct'::regclass";

#[tokio::test]
async fn killed_anywhere_it_is_fenced_or_not_and_lifting_repairs_it() {
    let legacy = Legacy::new().await;
    fence::install(&legacy.session).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut cut = 0;
    loop {
        // The backend goes when it has answered `cut` times: a proxy lets so many answers pass.
        let proxy = super::load::Cut::before(&legacy.options, cut).await;
        let ended = match Session::connect(&proxy.options, "cut").await {
            Ok(session) => {
                fence::fence(&session, &legacy.hasty(&format!("cut-{cut}")), &Cancel::default()).await.is_ok()
            }
            Err(_) => false,
        };
        proxy.settled(&legacy.session).await;
        let committed = fence::is_committed(&legacy.session, &format!("cut-{cut}")).await.unwrap();
        match legacy.standing().await {
            Standing::Fenced(_) => {
                assert!(committed, "cut {cut}");
                assert_refused(&legacy.session, "DELETE FROM s.acct").await;
            }
            Standing::Unfenced => assert!(!committed && legacy.triggers().await == "0", "cut {cut}"),
            other => panic!("cut {cut}: {other:?}"),
        }
        seen.insert(committed);
        legacy.lift().await.unwrap();
        assert_eq!(legacy.triggers().await, "0");
        legacy.session.execute("UPDATE s.acct SET n = n WHERE id = 1").await.unwrap();
        if ended {
            break;
        }
        cut += 1;
    }
    assert!(cut > 8, "only {cut} answers");
    assert_eq!(seen.len(), 2, "it was cut before and after the COMMIT");
}
