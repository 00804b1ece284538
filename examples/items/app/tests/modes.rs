//! What is answered: the same in both modes, and of one source only.

use std::collections::BTreeSet;

use pgrunbook_postgres::sandbox::PoolMode;
use rusqlite::Connection;
use serde_json::{Value, json};
use writers::http::Client;

use crate::bench::{Bench, TOKEN};

/// Moments of what was written just now differ between two services; that there is one does not.
fn timeless(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                *field = match name.as_str() {
                    "created_at" | "updated_at" => {
                        assert!(field.as_str().unwrap().ends_with('Z'), "{field}");
                        "some time".into()
                    }
                    "backend" => "one of two".into(),
                    _ => timeless(field.take()),
                };
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| *one = timeless(one.take())),
        _ => {}
    }
    value
}

#[tokio::test]
async fn both_modes_answer_alike() {
    let bench = Bench::new().await;
    bench.profile("assets_1", 120);
    let (old, new) = (bench.sqlite(), bench.postgres());
    bench.load(&new, "assets_1").await;
    for path in [
        "/items",
        "/items?limit=3",
        "/items?limit=500",
        "/items?q=garden",
        "/items?q=zo%C3%AB&limit=7",
        "/items?q=%D0%B6%D1%83%D1%80",
        "/items?q=plan-B+garden",
        "/items?q=nowhere",
        "/items?q=%22%27--",
        "/items/1",
        "/items/77",
        "/items/1/notes",
        "/items/2/notes",
        "/items/3/notes",
        "/items?source_id=assets_1",
    ] {
        let (left, right) = (old.get("assets_1", path).await, new.get("assets_1", path).await);
        assert_eq!((left.status, &left.body), (right.status, &right.body), "{path}");
        assert_eq!(left.status, 200, "{path}: {}", left.body);
    }
    let all = old.get("assets_1", "/items?limit=500").await.body;
    let found = old.get("assets_1", "/items?q=garden&limit=500").await.body["items"].as_array().unwrap().len();
    assert!(found > 0 && found < all["items"].as_array().unwrap().len(), "a search finds some: {found}");
    assert_eq!(old.get("assets_1", "/items?q=--").await.body["items"], json!([]), "no word finds nothing");
    for (serving, backend) in [(&old, "sqlite"), (&new, "postgres_primary")] {
        let health = serving.get("assets_1", "/health").await;
        assert_eq!(health.body["ok"], true);
        assert_eq!(health.body["backend"], backend);
        assert_eq!(health.body["source"], "assets_1");
        assert_eq!(health.body["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(serving.ask("GET", "/health", &[], None).await.body["source"], Value::Null);
        assert_eq!(health.headers["x-backend"], backend);
    }

    let key = [("X-Source-ID", "assets_1"), ("Idempotency-Key", "a key")];
    let plain = [("X-Source-ID", "assets_1")];
    let long = "é".repeat(100_000);
    let mut last = 0;
    for (method, path, headers, body, status) in [
        (
            "PUT",
            "/items/5/meta",
            &plain[..],
            Some(json!({ "z": 1.10, "a": "\u{0}", "n": [1e-300, -0.0, 12345678901234567890u64] })),
            200,
        ),
        ("PUT", "/items/6/meta", &key[..], Some(json!({})), 200),
        ("PUT", "/items/6/meta", &key[..], Some(json!({})), 200),
        ("PUT", "/items/7/meta", &key[..], Some(json!({})), 409),
        ("POST", "/items/5/notes", &plain[..], Some(json!({ "author": "anna", "body": long })), 201),
        ("PUT", "/items/5/notes/LAST", &plain[..], Some(json!({ "body": "edited" })), 200),
        ("POST", "/items/5/notes", &plain[..], Some(json!({ "author": "ben", "body": "second" })), 201),
        ("DELETE", "/items/5/notes/LAST", &plain[..], None, 200),
        ("DELETE", "/items/5/notes/LAST", &plain[..], None, 404),
        ("PUT", "/items/6/notes/LAST", &plain[..], Some(json!({ "body": "of another item" })), 404),
        ("PUT", "/items/999/meta", &plain[..], Some(json!({})), 404),
        ("POST", "/items/999/notes", &plain[..], Some(json!({ "author": "anna", "body": "" })), 404),
        ("GET", "/items/999/notes", &plain[..], None, 404),
        ("GET", "/items/999", &plain[..], None, 404),
        ("GET", "/items/5", &plain[..], None, 200),
        ("GET", "/items/5/notes", &plain[..], None, 200),
        ("GET", "/edits/a%20key", &plain[..], None, 200),
        ("GET", "/edits/none", &plain[..], None, 404),
        ("GET", "/stats", &plain[..], None, 200),
        ("GET", "/stats", &[][..], None, 200),
    ] {
        let path = path.replace("LAST", &last.to_string());
        let (left, right) =
            (old.ask(method, &path, headers, body.clone()).await, new.ask(method, &path, headers, body).await);
        assert_eq!((left.status, right.status), (status, status), "{method} {path}: {} {}", left.body, right.body);
        assert_eq!(timeless(left.body.clone()), timeless(right.body), "{method} {path}");
        last = left.body["note_id"].as_i64().filter(|_| method == "POST").unwrap_or(last);
    }
    let item = old.get("assets_1", "/items/5").await.body["item"].clone();
    let notes = old.get("assets_1", "/items/5/notes").await.body["notes"].as_array().unwrap().len();
    assert_eq!(item["note_count"], notes, "the triggers count alike");
    assert_eq!(old.get("assets_1", "/edits/a%20key").await.body["kind"], "meta");
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_both_modes() {
    let bench = Bench::new().await;
    bench.profile("assets_1", 10);
    let (old, new) = (bench.sqlite(), bench.postgres());
    bench.load(&new, "assets_1").await;
    let one = ("X-Source-ID", "assets_1");
    for serving in [&old, &new] {
        for (method, path, headers, body, status) in [
            ("GET", "/items", &[][..], None, 400),
            ("GET", "/items?source_id=assets_2", &[one][..], None, 400),
            ("GET", "/health?source_id=assets_2", &[one][..], None, 400),
            ("GET", "/items?source_id=assets_1&source_id=assets_1", &[][..], None, 400),
            ("GET", "/items", &[one, ("X-Source-ID", "assets_1")][..], None, 400),
            ("GET", "/items", &[("X-Source-ID", "")][..], None, 400),
            ("GET", "/items", &[("X-Source-ID", "nobody")][..], None, 400),
            ("GET", "/health", &[("X-Source-ID", "nobody")][..], None, 400),
            ("GET", "/stats?source_id=nobody", &[][..], None, 400),
            ("PUT", "/items/1/meta?source_id=nobody", &[][..], Some(json!({})), 400),
            ("GET", "/items?source_id=..%2Fassets_1", &[][..], None, 400),
            ("GET", "/items?source_id=src_assets_1", &[][..], None, 400),
            ("GET", "/items?source_id=assets_1%00", &[][..], None, 400),
            ("GET", "/items?limit=0", &[one][..], None, 400),
            ("GET", "/items?limit=many", &[one][..], None, 400),
            ("GET", "/items?limit=501", &[one][..], None, 400),
            ("GET", "/items?q=%zz", &[one][..], None, 400),
            ("GET", "/items/one", &[one][..], None, 400),
            ("PUT", "/items/1/meta", &[one][..], Some(json!([1])), 400),
            ("PUT", "/items/1/meta", &[one][..], None, 400),
            ("PUT", "/items/1/meta", &[one, ("Idempotency-Key", "")][..], Some(json!({})), 400),
            ("POST", "/items/1/notes", &[one][..], Some(json!({ "author": "anna" })), 400),
            ("POST", "/items/1/notes", &[one][..], Some(json!({ "author": "anna", "body": "a\u{0}b" })), 400),
            ("PUT", "/items/1/notes/x", &[one][..], Some(json!({ "body": "" })), 400),
            ("POST", "/admin/bootstrap/schema", &[one][..], None, 403),
            ("POST", "/admin/bootstrap/schema", &[one, ("Authorization", "Bearer wrong")][..], None, 403),
            ("GET", "/nowhere", &[one][..], None, 404),
        ] {
            let answer = serving.ask(method, path, headers, body).await;
            assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.body);
            assert!(
                answer.body["error"].as_str().is_some_and(|why| !why.is_empty()),
                "{method} {path}: {}",
                answer.body
            );
        }
    }
    assert_eq!(new.get("assets_1", "/stats").await.body["items"], 10, "none of it was written");
    let log = std::fs::read_to_string(bench.path("items.log")).unwrap();
    assert!(log.lines().any(|line| line.contains(" 400 GET \"/items\" source=\"nobody\"")), "{log}");
    assert!(!log.lines().any(|line| line.contains(" 500 ")), "{log}");
}

#[tokio::test]
async fn a_bootstrap_makes_a_source_once_and_never_takes_anothers_schema() {
    let bench = Bench::new().await;
    // In the mode SQLITE: that is when it is done.
    bench.profile("Assets-1", 1);
    let old = bench.sqlite();
    let first = old.admin("Assets-1", TOKEN).await;
    assert_eq!(
        (first.status, &first.body["schema"], &first.body["made_schema"]),
        (200, &json!("src_assets_1"), &json!(true))
    );
    let again = old.admin("Assets-1", TOKEN).await;
    assert_eq!(
        (again.status, &again.body["made_row"], &again.body["made_schema"]),
        (200, &json!(false), &json!(false))
    );
    let other = old.admin("assets_1", TOKEN).await;
    assert_eq!(other.status, 409, "{}", other.body);
    bench.execute("CREATE SCHEMA src_strangers").await;
    let stranger = old.admin("strangers", TOKEN).await;
    assert_eq!(stranger.status, 409, "{}", stranger.body);
    assert_eq!(old.admin("--", TOKEN).await.status, 400);
    let sources = bench.value("SELECT string_agg(source_id || '=' || schema_name, ' ') FROM shared.sources").await;
    assert_eq!(sources, "Assets-1=src_assets_1", "what was refused is not registered");

    let new = bench.postgres();
    assert_eq!(new.get("Assets-1", "/stats").await.body["items"], 0);
    assert_eq!(new.get("assets_1", "/stats").await.status, 400, "an id is not its schema's name");
    // A mapping whose schema is gone, or half made, is no source; and never somebody else's rows.
    bench.execute("CREATE TABLE public.items (id int); GRANT USAGE ON SCHEMA public TO PUBLIC; GRANT SELECT ON public.items TO PUBLIC").await;
    bench.execute("ALTER TABLE src_assets_1.items RENAME TO things").await;
    assert_eq!(new.get("Assets-1", "/items").await.status, 503);
    bench.execute("ALTER SCHEMA src_assets_1 RENAME TO elsewhere").await;
    let gone = new.get("Assets-1", "/items").await;
    assert_eq!(gone.status, 503, "{}", gone.body);
    assert!(gone.body["error"].as_str().unwrap().contains("src_assets_1"), "{}", gone.body);
}

#[tokio::test]
async fn sixteen_clients_of_four_sources_never_see_anothers_row() {
    let bench = Bench::new().await;
    let sources = ["north", "south", "east", "west"];
    let direct = bench.postgres();
    for source in sources {
        bench.profile(source, 40);
        bench.load(&direct, source).await;
    }
    // One server connection for all: each transaction inherits the connection of another source's.
    let pooler = bench.sandbox.pooler(PoolMode::Transaction, &[(bench.role().as_str(), "app")]).await.unwrap();
    let pooled = bench.serve(&bench.env("POSTGRES_PRIMARY", &pooler.through(&bench.runtime())));
    for serving in [&direct, &pooled] {
        let clients = (0..16).map(|number| {
            let (address, source) = (serving.address.clone(), sources[number % 4]);
            tokio::spawn(async move {
                let mut client = Client::new(address);
                let header = [("X-Source-ID", source)];
                for round in 0..40 {
                    let answer = match round % 4 {
                        0 => client.ask("GET", "/items?limit=10", &header, None).await,
                        1 => client.ask("GET", &format!("/items?source_id={source}&q=garden"), &[], None).await,
                        2 => client.ask("GET", &format!("/items/{}", number + 1), &header, None).await,
                        _ => {
                            let note =
                                json!({ "author": format!("{source} client"), "body": format!("{number} {round}") });
                            client.ask("POST", &format!("/items/{}/notes", number + 1), &header, Some(&note)).await
                        }
                    };
                    let answer = answer.unwrap();
                    assert!((200..300).contains(&answer.status), "{}", answer.body);
                    let rows = match &answer.body["items"] {
                        Value::Array(rows) => rows.clone(),
                        _ => answer.body.get("item").cloned().into_iter().collect(),
                    };
                    for row in rows {
                        let title = row["title"].as_str().unwrap();
                        assert!(title.starts_with(source), "{source} was shown {title}");
                    }
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    }
    for source in sources {
        let authors = bench
            .value(&format!("SELECT string_agg(DISTINCT split_part(author, ' ', 1), ' ') FROM src_{source}.notes"))
            .await;
        assert_eq!(authors, source, "each note is in its own source");
    }
}

#[test]
fn a_profile_is_the_same_for_the_same_seed_and_searches_with_tables_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let tables = |name: &str, seed| {
        let path = folder.path().join(name);
        items_app::legacy::make(&path, 50, seed).unwrap();
        let db = Connection::open(&path).unwrap();
        let sum: String = db
            .query_row("SELECT group_concat(title || body || score || meta) FROM items", [], |row| row.get(0))
            .unwrap();
        let mut names = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
        let names: BTreeSet<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        (sum, names)
    };
    let (first, names) = tables("a.db", 1);
    assert_eq!(first, tables("b.db", 1).0);
    assert_ne!(first, tables("c.db", 2).0);
    assert!(["items_fts", "items_fts_data", "items_fts_config"].iter().all(|name| names.contains(*name)), "{names:?}");
    assert!(items_app::legacy::make(&folder.path().join("a.db"), 1, 1).is_err(), "what is there is not written over");
}
