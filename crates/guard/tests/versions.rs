//! Which application fits which schema.

use pgrunbook_guard::Fit::{DatabaseNewer, Equal};
use pgrunbook_guard::Verdict::{ApplicationNewer, Fits, MajorsDiffer};
use pgrunbook_guard::{ChainVersion, Guard, GuardError, Outcome, Source, Verdict, compare};
use semver::Version;

use crate::place::Place;

/// Application, database, verdict.
const PAIRS: &[(&str, &str, Verdict)] = &[
    // The four rules.
    ("1.0.0", "1.0.0", Fits(Equal)),
    ("1.0.0", "1.1.0", Fits(DatabaseNewer)),
    ("1.1.0", "1.0.0", ApplicationNewer),
    ("1.0.0", "2.0.0", MajorsDiffer),
    // Minor and patch, and numbers that are no text.
    ("1.0.0", "1.0.1", Fits(DatabaseNewer)),
    ("1.0.1", "1.0.0", ApplicationNewer),
    ("1.2.0", "1.10.0", Fits(DatabaseNewer)),
    ("1.10.0", "1.2.0", ApplicationNewer),
    ("1.0.9", "1.0.10", Fits(DatabaseNewer)),
    ("1.0.10", "1.0.9", ApplicationNewer),
    ("1.9.9", "1.10.0", Fits(DatabaseNewer)),
    ("1.4.2", "1.4.2", Fits(Equal)),
    ("3.7.11", "3.7.11", Fits(Equal)),
    ("1.0.0", "1.0.18446744073709551615", Fits(DatabaseNewer)),
    // Majors, both ways, and as numbers.
    ("2.0.0", "1.0.0", MajorsDiffer),
    ("2.0.0", "1.99.99", MajorsDiffer),
    ("1.99.99", "2.0.0", MajorsDiffer),
    ("9.0.0", "10.0.0", MajorsDiffer),
    ("10.0.0", "9.0.0", MajorsDiffer),
    ("10.0.0", "1.0.0", MajorsDiffer),
    ("10.1.0", "10.1.0", Fits(Equal)),
    // Zero is a major like any other.
    ("0.1.0", "0.1.0", Fits(Equal)),
    ("0.1.0", "0.2.0", Fits(DatabaseNewer)),
    ("0.2.0", "0.1.0", ApplicationNewer),
    ("0.9.0", "1.0.0", MajorsDiffer),
    ("1.0.0", "0.9.0", MajorsDiffer),
    ("0.0.0", "0.0.0", Fits(Equal)),
    ("0.0.1", "0.0.2", Fits(DatabaseNewer)),
    // A pre-release stands before its release.
    ("1.1.0", "1.1.0-rc.1", ApplicationNewer),
    ("1.1.0-rc.1", "1.1.0", Fits(DatabaseNewer)),
    ("1.1.0-rc.1", "1.1.0-rc.1", Fits(Equal)),
    ("1.1.0-rc.1", "1.1.0-rc.2", Fits(DatabaseNewer)),
    ("1.1.0-rc.2", "1.1.0-rc.1", ApplicationNewer),
    ("1.1.0-rc.2", "1.1.0-rc.10", Fits(DatabaseNewer)),
    ("1.1.0-rc.10", "1.1.0-rc.2", ApplicationNewer),
    ("1.0.0", "1.1.0-alpha", Fits(DatabaseNewer)),
    ("1.1.0-alpha", "1.0.0", ApplicationNewer),
    ("1.1.0-alpha", "1.1.0-beta", Fits(DatabaseNewer)),
    ("1.1.0-beta", "1.1.0-alpha", ApplicationNewer),
    ("1.1.0-alpha", "1.1.0-alpha.1", Fits(DatabaseNewer)),
    ("1.1.0-alpha.1", "1.1.0-alpha", ApplicationNewer),
    ("1.1.0-1", "1.1.0-alpha", Fits(DatabaseNewer)),
    ("1.9.0", "2.0.0-rc.1", MajorsDiffer),
    ("2.0.0-rc.1", "1.9.0", MajorsDiffer),
    ("2.0.0-rc.1", "2.0.0", Fits(DatabaseNewer)),
    ("2.0.0", "2.0.0-rc.1", ApplicationNewer),
    // Build metadata says nothing of the schema.
    ("1.0.0+linux", "1.0.0", Fits(Equal)),
    ("1.0.0", "1.0.0+20250811", Fits(Equal)),
    ("1.0.0+b", "1.0.0+a", Fits(Equal)),
    ("1.0.0+a", "1.0.0+b", Fits(Equal)),
    ("1.1.0-rc.1+5", "1.1.0-rc.1+4", Fits(Equal)),
    ("1.1.0+a", "1.0.0+b", ApplicationNewer),
];

#[test]
fn every_pair_is_decided_right() {
    assert!(PAIRS.len() >= 40, "{}", PAIRS.len());
    for (app, database, verdict) in PAIRS {
        let found = compare(&Version::parse(app).unwrap(), &Version::parse(database).unwrap());
        assert_eq!(found, *verdict, "application {app}, database {database}");
    }
}

#[tokio::test]
async fn every_pair_is_decided_right_by_a_server() {
    let place = Place::at("0.0.0").await;
    let mut client = place.client().await;
    for (app, database, verdict) in PAIRS {
        let set = format!(
            "UPDATE bot_config SET config_value = jsonb_set(config_value, '{{version}}', to_jsonb('{database}'::text))"
        );
        client.batch_execute(&set).await.unwrap();
        let guard = Guard::new(app, Source::bot_config()).unwrap().wait(std::time::Duration::ZERO);
        let found = match guard.check(&mut client).await {
            Ok(Outcome::Compatible(fits)) => Fits(fits.fit),
            Err(GuardError::ApplicationNewer { .. }) => ApplicationNewer,
            Err(GuardError::MajorsDiffer { .. }) => MajorsDiffer,
            other => panic!("application {app}, database {database}: {other:?}"),
        };
        assert_eq!(found, *verdict, "application {app}, database {database}");
    }
}

#[test]
fn version_that_is_none_is_refused_before_anything_is_asked() {
    for text in ["", "1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "latest", " 1.0.0", "1.0.0\n", "1.0.-1"] {
        let error = Guard::new(text, Source::bot_config()).unwrap_err();
        assert!(matches!(error, GuardError::AppVersion { .. }), "{text:?}: {error}");
        assert!(error.to_string().contains("MAJOR.MINOR.PATCH"), "{error}");
    }
    for text in ["", "1.0.0-rc.1", "v1", "one"] {
        let error = Guard::new(text, Source::history("db")).unwrap_err();
        assert!(matches!(error, GuardError::AppVersion { .. }), "{text:?}: {error}");
    }
}

#[test]
fn versions_of_migrations_are_numbers() {
    let version = |text| ChainVersion::parse(text).unwrap();
    assert_eq!(version("0008"), version("8"));
    assert_eq!(version("1.0"), version("1"));
    assert!(version("10") > version("9"));
    assert!(version("1.10") > version("1.9"));
    assert!(version("20240102030405") > version("11"));
    assert_eq!(ChainVersion::parse("8a"), None);
}
