//! Flags in PostgreSQL: shares that stick, the kill switch, overrides, and what is said while the database is away.

use std::time::Duration;

use pgrunbook_guard::driver::tokio_postgres::connecting;
use pgrunbook_guard::flag::bucket::is_in;
use pgrunbook_guard::flag::{
    BotConfig, Context, Evaluation, Flags, Freshness, Origin, Overrides, Percent, Reason, TABLE_SQL, Table,
    parse_flagd, parse_json,
};
use pgrunbook_postgres::ConnectOptions;
use pgrunbook_postgres::sandbox::url;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::place::Place;

fn percent(thousandths: u32) -> Percent {
    Percent::of_thousandths(thousandths).unwrap()
}

proptest! {
    /// Who is in at a share is in at every larger one, and who is out at one is out at every smaller one.
    #[test]
    fn shares_stick_up_and_down(flag in "[a-z-]{1,20}", key in ".{0,30}", a in 0_u32..=100_000, b in 0_u32..=100_000) {
        let (small, large) = (percent(a.min(b)), percent(a.max(b)));
        prop_assert!(!is_in(&flag, &key, small) || is_in(&flag, &key, large));
        prop_assert!(is_in(&flag, &key, large) || !is_in(&flag, &key, small));
        prop_assert!(!is_in(&flag, &key, Percent::NONE) && is_in(&flag, &key, Percent::ALL));
    }

    /// The table's percentage and a file's `fractional` are one rule.
    #[test]
    fn table_and_file_agree(flag in "[a-z-]{1,20}", key in "[ -~]{1,30}", share in 0_u32..=100) {
        let rest = 100 - share;
        let file = json!({ "flags": { &flag: {
            "state": "ENABLED", "variants": { "on": true, "off": false }, "defaultVariant": "off",
            "targeting": { "fractional": [["on", share], ["off", rest]] },
        } } });
        let row = json!({ &flag: { "percentage": share } });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let context = Context::of(&*key);
        let of_file = Fixed(file.to_string(), parse_flagd);
        let of_row = Fixed(row.to_string(), parse_json);
        let of_file = runtime.block_on(Flags::new(of_file).evaluate(&flag, &context, Value::Null));
        let of_row = runtime.block_on(Flags::new(of_row).evaluate(&flag, &context, Value::Null));
        prop_assert_eq!(of_file.value, of_row.value);
    }
}

/// Expressions of known and unknown operators over anything.
fn expression() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z.$0-9]{0,8}".prop_map(Value::from),
    ];
    let operators = ["if", "and", "or", "var", "missing", "cat", "==", "!=", "===", "!==", "!", "!!", "<", ">=", "in"];
    let operators = operators.into_iter().chain(["starts_with", "ends_with", "sem_ver", "fractional", "map", ""]);
    let operator = prop::sample::select(operators.collect::<Vec<_>>());
    leaf.prop_recursive(5, 64, 6, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from);
        let operation = (operator.clone(), list.clone()).prop_map(|(name, operands)| json!({ name: operands }));
        let single = (operator.clone(), inner).prop_map(|(name, operand)| json!({ name: operand }));
        prop_oneof![list, operation, single]
    })
}

proptest! {
    /// Whatever stands in a file: an answer and a reason, no panic.
    #[test]
    fn every_expression_comes_to_something(targeting in expression(), key in ".{0,10}") {
        let flag = json!({ "state": "ENABLED", "variants": { "on": true }, "targeting": targeting });
        let set = parse_flagd(&json!({ "flags": { "flag": flag.clone() } }).to_string()).unwrap();
        prop_assert_eq!(set.len(), 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let flags = Flags::new(Fixed(json!({ "flags": { "flag": flag } }).to_string(), parse_flagd));
        let found = runtime.block_on(flags.evaluate("flag", &Context::of(&*key), json!("mine")));
        prop_assert!(found.value == json!(true) || found.value == json!("mine"), "{}", found);
        prop_assert_eq!(found.value == json!(true), found.variant.is_some());
    }

    #[test]
    fn every_text_is_read_or_refused(text in ".{0,200}") {
        prop_assert!(parse_flagd(&text).is_err());
        let is_object = text.trim_start().starts_with('{');
        prop_assert!(is_object || parse_json(&text).is_err());
    }
}

/// A text that does not change.
struct Fixed(String, fn(&str) -> Result<pgrunbook_guard::flag::FlagSet, String>);

impl Origin for Fixed {
    async fn read(&mut self) -> Result<pgrunbook_guard::flag::FlagSet, pgrunbook_guard::flag::OriginError> {
        (self.1)(&self.0).map_err(pgrunbook_guard::flag::OriginError)
    }
}

#[test]
fn shares_are_of_the_size_that_was_asked_for() {
    for share in [1, 10, 50, 90] {
        let keys = 100_000;
        let inside = (0..keys).filter(|key| is_in("checkout", &format!("user-{key}"), percent(share * 1000))).count();
        let found = inside as f64 / f64::from(keys) * 100.0;
        // Four standard deviations of a fair coin are 0.6 at most.
        assert!((found - f64::from(share)).abs() < 0.7, "{found} % instead of {share} %");
    }
    // Two flags do not choose the same keys.
    let both = (0..10_000)
        .map(|key| format!("user-{key}"))
        .filter(|key| is_in("one", key, percent(10_000)) && is_in("two", key, percent(10_000)))
        .count();
    assert!((40..=180).contains(&both), "{both} of 10,000 are in both tenths");
}

/// A reader's flags, read each time.
fn reader(options: &ConnectOptions) -> Flags<impl Origin + use<>> {
    Flags::new(Table(connecting(url(options).parse().unwrap(), NoTls))).max_age(Duration::ZERO)
}

const READER: &str = "GRANT USAGE ON SCHEMA pgrunbook TO ROLE; GRANT SELECT ON pgrunbook.flag TO ROLE";

async fn place(flags: &str) -> Place {
    let place = Place::new().await;
    place.execute(&format!("SET client_min_messages = warning; {TABLE_SQL}")).await;
    // It may be made again.
    place.execute(&format!("SET client_min_messages = warning; {TABLE_SQL}")).await;
    place.execute(&format!("INSERT INTO pgrunbook.flag (name, percentage, updated_by) VALUES {flags}")).await;
    place
}

async fn bool_of(flags: &Flags<impl Origin>, name: &str, key: &str) -> Evaluation {
    flags.evaluate(name, &Context::of(key), json!(false)).await
}

#[tokio::test]
async fn table_is_read_and_its_kill_switch_is_obeyed_at_once() {
    let place = place("('all', 100, 'anna'), ('none', 0, 'anna'), ('some', 12.5, 'anna')").await;
    let flags = reader(&place.role(READER).await);
    let found = bool_of(&flags, "all", "x").await;
    assert_eq!((&found.value, &found.reason), (&json!(true), &Reason::Static));
    assert_eq!(found.variant.as_deref(), Some("on"));
    assert!(found.changed.as_deref().is_some_and(|changed| changed.starts_with("by anna at 20")), "{found:?}");
    let found = bool_of(&flags, "none", "x").await;
    assert_eq!((found.value, found.reason), (json!(false), Reason::Static));
    let found = bool_of(&flags, "some", "x").await;
    assert_eq!((found.value, found.reason), (json!(is_in("some", "x", percent(12_500))), Reason::Split));
    let found = flags.evaluate("some", &Context::default(), json!(true)).await;
    assert_eq!((found.value, found.reason), (json!(true), Reason::NoKey));
    place.execute("UPDATE pgrunbook.flag SET enabled = false WHERE name = 'all'").await;
    let found = bool_of(&flags, "all", "x").await;
    assert_eq!((found.value, found.variant, found.reason), (json!(false), Some("off".to_owned()), Reason::Disabled));
    assert!(!flags.is_on("all", "x").await);
    let values = "'{\"g\": \"green\", \"b\": \"blue\"}', 'g', 'b'";
    place.execute(&format!("INSERT INTO pgrunbook.flag VALUES ('colour', {values}, 100)")).await;
    let found = flags.evaluate("colour", &Context::of("x"), json!("none")).await;
    assert_eq!((found.value, found.variant), (json!("green"), Some("g".to_owned())));
}

#[tokio::test]
async fn table_refuses_what_no_reader_could_use() {
    let place = place("('all', 100, 'anna')").await;
    let session = place.session().await;
    for sql in [
        "INSERT INTO pgrunbook.flag (name, percentage) VALUES ('a', 101)",
        "INSERT INTO pgrunbook.flag (name, percentage) VALUES ('a', -1)",
        "INSERT INTO pgrunbook.flag (name) VALUES ('')",
        "INSERT INTO pgrunbook.flag (name, variants) VALUES ('a', '{\"on\": 1}')",
        "INSERT INTO pgrunbook.flag (name, variants) VALUES ('a', '[]')",
        "INSERT INTO pgrunbook.flag (name, on_variant) VALUES ('a', 'other')",
    ] {
        let error = session.execute(sql).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("23514"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn row_of_json_is_read_as_the_seed_writes_it() {
    let place = Place::new().await;
    place.execute("CREATE TABLE bot_config (config_key text, config_value jsonb, environment text)").await;
    let json = r#"{"autonomous_posting": true, "search": {"percentage": 10}, "broken": 7, "odd": {"percent": 3},
                   "killed": {"enabled": false, "percentage": 100},
                   "colour": {"variants": {"on": "green", "off": "blue"}, "updated_by": "anna"}}"#;
    place.execute(&format!("INSERT INTO bot_config VALUES ('feature_flags', '{json}', 'production')")).await;
    place.execute("INSERT INTO bot_config VALUES ('feature_flags', '{}', 'staging')").await;
    let connection = connecting(url(&place.database).parse().unwrap(), NoTls);
    let mut origin = BotConfig::of(connection, "bot_config").unwrap();
    assert!(origin.read().await.unwrap_err().0.contains("several times"));
    origin.environment = Some("production".to_owned());
    let flags = Flags::new(origin).max_age(Duration::ZERO);
    assert!(flags.is_on("autonomous_posting", "x").await);
    assert_eq!(flags.is_on("search", "x").await, is_in("search", "x", percent(10_000)));
    assert_eq!(bool_of(&flags, "killed", "x").await.reason, Reason::Disabled);
    let found = flags.evaluate("colour", &Context::of("x"), json!("none")).await;
    assert_eq!((found.value, found.changed), (json!("green"), Some("by anna".to_owned())));
    for (name, why) in [("broken", "7 is neither true, false nor an object"), ("odd", "its `percent` is 3")] {
        assert_eq!(bool_of(&flags, name, "x").await.reason, Reason::Malformed(why.to_owned()));
    }
    // The seed's own way to stop the posting.
    let stop = "UPDATE bot_config SET config_value = jsonb_set(config_value, '{autonomous_posting}', 'false')
                WHERE config_key = 'feature_flags' AND environment = 'production'";
    place.execute(stop).await;
    let found = bool_of(&flags, "autonomous_posting", "x").await;
    assert_eq!((found.value, found.reason), (json!(false), Reason::Disabled));
}

#[tokio::test]
async fn override_is_shown_and_does_not_beat_the_kill_switch() {
    let place = place("('new-search', 0, 'anna'), ('posting', 100, 'anna')").await;
    let vars = [("PGRUNBOOK_FLAG_NEW_SEARCH", "on"), ("LIVE_POSTS", "false"), ("PGRUNBOOK_FLAG_UNKNOWN", "true")];
    let vars = Overrides::of(vars.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let flags = reader(&place.database).overrides(vars.named("posting", "LIVE_POSTS"));
    let found = bool_of(&flags, "new-search", "x").await;
    let variable = "PGRUNBOOK_FLAG_NEW_SEARCH".to_owned();
    assert_eq!((&found.value, &found.reason), (&json!(true), &Reason::Override { variable }));
    assert!(
        found.to_string().starts_with("new-search = true: the variable PGRUNBOOK_FLAG_NEW_SEARCH says so"),
        "{found}"
    );
    let found = bool_of(&flags, "posting", "x").await;
    let variable = "LIVE_POSTS".to_owned();
    assert_eq!(
        (found.value, found.variant, found.reason),
        (json!(false), Some("off".to_owned()), Reason::Override { variable })
    );
    let found = bool_of(&flags, "unknown", "x").await;
    assert_eq!(found.value, json!(true));
    place.execute("UPDATE pgrunbook.flag SET enabled = false").await;
    let found = bool_of(&flags, "new-search", "x").await;
    assert_eq!((&found.value, &found.reason), (&json!(false), &Reason::Disabled));
    assert!(found.to_string().contains("PGRUNBOOK_FLAG_NEW_SEARCH is set and does not count"), "{found}");
    let vars = [("PGRUNBOOK_FLAG_POSTING".to_owned(), "maybe".to_owned())];
    place.execute("UPDATE pgrunbook.flag SET enabled = true").await;
    let flags = reader(&place.database).overrides(Overrides::of(vars));
    let found = bool_of(&flags, "posting", "x").await;
    assert_eq!((&found.value, &found.reason), (&json!(true), &Reason::Static));
    assert!(found.note.as_deref().is_some_and(|note| note.contains("`maybe` is neither")), "{found:?}");
}

/// Ends the role's sessions and lets it in no more.
async fn shut_out(place: &Place, role: &str) {
    place.execute(&format!("ALTER ROLE \"{role}\" NOLOGIN")).await;
    place
        .execute(&format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}'"))
        .await;
}

#[tokio::test]
async fn database_that_is_away_leaves_the_last_that_is_known_and_says_so() {
    let place = place("('all', 100, 'anna')").await;
    let role = place.role(READER).await;
    let flags = reader(&role);
    assert!(matches!(bool_of(&flags, "all", "x").await.freshness, Freshness::Current { .. }));
    shut_out(&place, &role.user).await;
    let found = bool_of(&flags, "all", "x").await;
    assert_eq!(found.value, json!(true));
    assert!(matches!(&found.freshness, Freshness::Stale { .. }), "{found:?}");
    assert!(found.to_string().contains("ago, since then: "), "{found}");
    // One that was never there, or only for so long: the caller's default.
    let never = reader(&role);
    let found = never.evaluate("all", &Context::of("x"), json!("mine")).await;
    assert_eq!((&found.value, &found.freshness), (&json!("mine"), &Freshness::Unknown));
    assert!(matches!(&found.reason, Reason::Unavailable(why) if why.contains("not permitted to log in")), "{found:?}");
    place.execute(&format!("ALTER ROLE \"{}\" LOGIN", role.user)).await;
    let brief = reader(&role).last_known_for(Duration::ZERO);
    assert!(brief.is_on("all", "x").await);
    let found = bool_of(&flags, "all", "x").await;
    assert!(matches!(found.freshness, Freshness::Current { .. }), "{found:?}");
    shut_out(&place, &role.user).await;
    let found = bool_of(&brief, "all", "x").await;
    assert_eq!((&found.value, &found.freshness), (&json!(false), &Freshness::Unknown));
}

#[tokio::test]
async fn what_was_read_is_kept_for_as_long_as_was_said() {
    let place = place("('all', 100, 'anna')").await;
    let flags = reader(&place.database).max_age(Duration::from_secs(3600));
    assert!(flags.is_on("all", "x").await);
    place.execute("UPDATE pgrunbook.flag SET enabled = false").await;
    let found = bool_of(&flags, "all", "x").await;
    assert_eq!(found.value, json!(true));
    let Freshness::Current { age } = found.freshness else { panic!("{found:?}") };
    assert!(age > Duration::ZERO);
    let fresh = reader(&place.database);
    assert!(!fresh.is_on("all", "x").await);
}

#[tokio::test]
async fn many_who_ask_at_once_read_once() {
    let place = place("('all', 100, 'anna')").await;
    let reads = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Counted { origin: Table(place.client().await), reads: reads.clone() };
    let flags = std::sync::Arc::new(Flags::new(counted));
    let mut asks = tokio::task::JoinSet::new();
    for key in 0..100 {
        let flags = flags.clone();
        asks.spawn(async move { flags.is_on("all", &key.to_string()).await });
    }
    while let Some(on) = asks.join_next().await {
        assert!(on.unwrap());
    }
    assert_eq!(reads.load(std::sync::atomic::Ordering::SeqCst), 1);
}

struct Counted<O> {
    origin: O,
    reads: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl<O: Origin> Origin for Counted<O> {
    async fn read(&mut self) -> Result<pgrunbook_guard::flag::FlagSet, pgrunbook_guard::flag::OriginError> {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.origin.read().await
    }
}
