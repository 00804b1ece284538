//! Files in flagd's format decide as flagd does: the cases are those of flagd-testbed (`evaluator/gherkin`, the
//! high-precision rule, `@fractional-v2`), <https://github.com/open-feature/flagd-testbed>.

use pgrunbook_guard::flag::{Context, Evaluation, File, Flags, Reason, parse_flagd};
use serde_json::{Map, Value, json};

/// Flags with the names and weights of the testbed.
fn file() -> Value {
    let suits =
        json!({ "clubs": "clubs", "diamonds": "diamonds", "hearts": "hearts", "spades": "spades", "wild": "wild" });
    let quarters = [json!(["clubs", 25]), json!(["diamonds", 25]), json!(["hearts", 25]), json!(["spades", 25])];
    let by =
        |by: Value| json!({ "fractional": std::iter::once(by).chain(quarters.iter().cloned()).collect::<Vec<_>>() });
    let flag = |variants: &Value, default: &str, targeting: Value| json!({ "state": "ENABLED", "variants": variants, "defaultVariant": default, "targeting": targeting });
    let halves = json!({ "lower": "lower", "upper": "upper" });
    let tiers = json!({ "premium": "premium", "standard": "standard", "fallback": "fallback" });
    let colours = json!({ "red": "red", "blue": "blue", "fallback": "fallback" });
    let is_premium = json!({ "==": [{ "var": "tier" }, "premium"] });
    json!({
        "flags": {
            "fractional-flag": flag(&suits, "wild", by(json!({ "cat": [{ "var": "$flagd.flagKey" }, { "var": "user.name" }] }))),
            "fractional-flag-A-shared-seed": flag(&suits, "wild", by(json!({ "cat": ["shared-seed", { "var": "user.name" }] }))),
            "fractional-flag-shorthand": flag(
                &json!({ "heads": "heads", "tails": "tails", "draw": "draw" }), "draw",
                json!({ "fractional": [["heads"], ["tails", 1]] })),
            "fractional-hash-edge-flag": flag(&halves, "lower",
                json!({ "fractional": [{ "var": "targetingKey" }, ["lower", 50], ["upper", 50]] })),
            "fractional-nested-if-flag": flag(&tiers, "fallback", json!({ "fractional": [
                { "var": "targetingKey" }, [{ "if": [is_premium, "premium", "standard"] }, 50], ["standard", 50]] })),
            "fractional-nested-weight-flag": flag(&colours, "fallback", json!({ "fractional": [
                { "var": "targetingKey" }, ["red", { "if": [is_premium, 100, 0] }], ["blue", 10]] })),
            "fractional-as-condition-flag": flag(
                &json!({ "big": "hundreds", "small": "ones", "fallback": "zero" }), "fallback",
                json!({ "if": [{ "fractional": [[false, 0], [true, 100]] }, "big", "small"] })),
            "no-weight": flag(&halves, "upper", json!({ "fractional": [{ "var": "targetingKey" }, ["lower", 0]] })),
            "text": flag(&json!({ "hi": "hi", "bye": "bye", "none": "none" }), "none",
                json!({ "if": [{ "$ref": "is_ballmer" }, "hi", { "starts_with": [{ "var": "id" }, "abc"] }, "bye", null] })),
            "version": flag(&json!({ "old": 1, "new": 2 }), "old",
                json!({ "if": [{ "sem_ver": [{ "var": "version" }, ">=", "2.0.0"] }, "new", null] })),
            "off": { "state": "DISABLED", "variants": { "on": true }, "defaultVariant": "on" },
            "plain": { "state": "ENABLED", "variants": { "on": true, "off": false }, "defaultVariant": "on", "targeting": {} },
            "no-default": { "state": "ENABLED", "variants": { "on": true }, "targeting": { "if": [false, "on"] } },
            "unknown-operator": flag(&halves, "lower", json!({ "map": [[1], "upper"] })),
            "unknown-variant": flag(&halves, "lower", json!("middle")),
            "unknown-reference": flag(&halves, "lower", json!({ "$ref": "nobody" })),
            "no-state": { "variants": { "on": true } },
            "heavy": flag(&halves, "lower", json!({ "fractional": [["lower", 2_147_483_647], ["upper", 1]] })),
            "broken-weight": flag(&halves, "lower", json!({ "fractional": [["lower", 1.5], ["upper", 1]] })),
        },
        "$evaluators": { "is_ballmer": { "==": ["ballmer@macrosoft.com", { "var": ["email"] }] } },
    })
}

struct Place {
    flags: Flags<File>,
    _folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flags.json");
        std::fs::write(&path, file().to_string()).unwrap();
        Self { flags: Flags::new(File(path)), _folder: folder }
    }

    async fn of(&self, flag: &str, key: Option<&str>, fields: Value) -> Evaluation {
        let fields: Map<String, Value> = fields.as_object().cloned().unwrap_or_default();
        let context = Context { key: key.map(str::to_owned), fields };
        self.flags.evaluate(flag, &context, json!("caller")).await
    }
}

#[tokio::test]
async fn shares_are_those_of_flagd() {
    let place = Place::new();
    let cases = [
        ("fractional-flag", "jack", "hearts"),
        ("fractional-flag", "queen", "spades"),
        ("fractional-flag", "ten", "clubs"),
        ("fractional-flag", "nine", "diamonds"),
        ("fractional-flag", "3", "clubs"),
        ("fractional-flag-A-shared-seed", "seven", "hearts"),
        ("fractional-flag-A-shared-seed", "eight", "diamonds"),
        ("fractional-flag-A-shared-seed", "nine", "clubs"),
        ("fractional-flag-A-shared-seed", "two", "spades"),
    ];
    for (flag, name, value) in cases {
        let found = place.of(flag, None, json!({ "user": { "name": name } })).await;
        assert_eq!((found.value, found.reason), (json!(value), Reason::TargetingMatch), "{flag}, {name}");
    }
    let cases = [
        ("fractional-flag-shorthand", "jon@company.com", "", "heads"),
        ("fractional-flag-shorthand", "jane@company.com", "", "tails"),
        ("fractional-hash-edge-flag", "ejOoVL", "", "lower"),
        ("fractional-hash-edge-flag", "bY9fO-", "", "lower"),
        ("fractional-hash-edge-flag", "SI7p-", "", "lower"),
        ("fractional-hash-edge-flag", "6LvT0", "", "upper"),
        ("fractional-hash-edge-flag", "ceQdGm", "", "upper"),
        ("fractional-nested-if-flag", "jon@company.com", "premium", "premium"),
        ("fractional-nested-if-flag", "jon@company.com", "basic", "standard"),
        ("fractional-nested-if-flag", "user1", "premium", "standard"),
        ("fractional-nested-weight-flag", "jon@company.com", "premium", "red"),
        ("fractional-nested-weight-flag", "jon@company.com", "basic", "blue"),
        ("fractional-nested-weight-flag", "user1", "premium", "red"),
        ("fractional-as-condition-flag", "some-targeting-key", "", "hundreds"),
    ];
    for (flag, key, tier, value) in cases {
        let found = place.of(flag, Some(key), json!({ "tier": tier })).await;
        assert_eq!((found.value, found.reason), (json!(value), Reason::TargetingMatch), "{flag}, {key}, {tier}");
    }
}

#[tokio::test]
async fn expressions_decide_or_leave_it_to_the_default() {
    let place = Place::new();
    let found = place.of("text", None, json!({ "email": "ballmer@macrosoft.com" })).await;
    assert_eq!((found.value, found.reason), (json!("hi"), Reason::TargetingMatch));
    let found = place.of("text", None, json!({ "id": "abcdef" })).await;
    assert_eq!((found.value, found.reason), (json!("bye"), Reason::TargetingMatch));
    let found = place.of("text", None, json!({ "id": 7 })).await;
    assert_eq!((found.value, found.reason), (json!("none"), Reason::Default));
    let found = place.of("version", None, json!({ "version": "2.0.0" })).await;
    assert_eq!((found.value, found.variant), (json!(2), Some("new".to_owned())));
    let found = place.of("version", None, json!({ "version": "2.0.0-rc.1" })).await;
    assert_eq!(found.value, json!(1));
    let found = place.of("plain", None, json!({})).await;
    assert_eq!((found.value, found.reason), (json!(true), Reason::Static));
    let found = place.of("no-weight", Some("anna"), json!({})).await;
    assert_eq!((found.value, found.reason), (json!("upper"), Reason::Default));
}

#[tokio::test]
async fn what_has_no_answer_leaves_it_to_the_caller_and_says_why() {
    let place = Place::new();
    let found = place.of("off", Some("anna"), json!({})).await;
    assert_eq!((found.value, found.reason), (json!("caller"), Reason::Disabled));
    let found = place.of("no-default", Some("anna"), json!({})).await;
    assert_eq!((found.value, found.reason), (json!("caller"), Reason::Default));
    let found = place.of("fractional-flag-shorthand", None, json!({})).await;
    assert_eq!((found.value, found.reason), (json!("caller"), Reason::NoKey));
    let found = place.of("nobody", Some("anna"), json!({})).await;
    assert_eq!((found.value, found.reason), (json!("caller"), Reason::NotFound));
    let cases = [
        ("unknown-operator", "uses `map`"),
        ("unknown-variant", "no variant \"middle\""),
        ("unknown-reference", "refers to \"nobody\""),
        ("no-state", "`state` is neither"),
        ("heavy", "are above 2147483647"),
        ("broken-weight", "no whole number"),
    ];
    for (flag, why) in cases {
        let found = place.of(flag, Some("anna"), json!({})).await;
        assert!(matches!(&found.reason, Reason::Malformed(said) if said.contains(why)), "{flag}: {found}");
        assert_eq!(found.value, json!("caller"));
    }
}

#[test]
fn file_that_is_none_is_refused() {
    for (text, why) in [("", "no JSON"), ("{", "no JSON"), ("[]", "no `flags`"), ("{\"flags\": 1}", "no `flags`")] {
        let error = parse_flagd(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    // As deep as it likes: the reader of JSON ends it.
    assert!(parse_flagd(&"[".repeat(100_000)).is_err());
}
