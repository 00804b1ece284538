//! The walls of ARCHITECTURE.md, read off `cargo metadata`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Left to right: each may depend on those before it, and on no other crate of the workspace.
const LAYERS: &[&str] = &[
    "pgrunbook-document",
    "pgrunbook-engine",
    "pgrunbook-postgres",
    "pgrunbook-steps",
    "pgrunbook-server",
    "pgrunbook",
];

/// What only some crates may speak: the dependency, and who may name it.
const OWNERS: &[(&str, &[&str])] = &[
    ("comrak", &["pgrunbook-document", "pgrunbook-engine"]),
    ("pulldown-cmark", &["pgrunbook-document"]),
    ("clap", &["pgrunbook", "xtask"]),
    ("hyper", &["pgrunbook-server"]),
    ("hyper-util", &["pgrunbook-server"]),
    ("reqwest", &["pgrunbook-steps"]),
    ("lettre", &["pgrunbook-steps"]),
    ("open-feature", &["pgrunbook-guard"]),
    ("sqlx-core", &["pgrunbook-guard"]),
    ("sqlx-postgres", &["pgrunbook-guard"]),
];

/// Grows only on purpose: a new dependency brings its own. Of these the guard's adapters, which nobody pays for who does not
/// switch them on, have 32: sqlx's core and driver, OpenFeature's SDK with mockall. The Redis client has seven, mail
/// five, squawk's linter twenty.
const LOCKED_PACKAGES: usize = 440;

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Normal dependencies of each package of the workspace.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
            let names = normal.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
            (package["name"].as_str().unwrap().to_owned(), names.collect())
        })
        .collect()
}

#[test]
fn arrows_point_left_only() {
    let dependencies = dependencies();
    for (place, crate_name) in LAYERS.iter().enumerate() {
        let named = &dependencies[*crate_name];
        let wrong: Vec<_> = named.iter().filter(|name| LAYERS[place..].contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{crate_name} must not depend on {wrong:?}");
    }
}

#[test]
fn guard_stands_alone() {
    let dependencies = dependencies();
    let wrong: Vec<_> = dependencies["pgrunbook-guard"].iter().filter(|name| name.starts_with("pgrunbook")).collect();
    assert!(wrong.is_empty(), "pgrunbook-guard must not depend on {wrong:?}: strangers embed it");
}

#[test]
fn each_field_has_its_owner() {
    for (crate_name, named) in dependencies() {
        for (dependency, owners) in OWNERS {
            let allowed = owners.contains(&crate_name.as_str()) || !named.iter().any(|name| name == dependency);
            assert!(allowed, "{crate_name} must not depend on {dependency}: that is the field of {owners:?}");
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let reasons = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/dependencies.md")).unwrap();
    let words: Vec<&str> = reasons.split([' ', ',', '|', '\n']).collect();
    for (crate_name, named) in dependencies() {
        for dependency in named.iter().filter(|name| !name.starts_with("pgrunbook")) {
            let has_reason = words.contains(&dependency.as_str()) || dependency == "anyhow";
            assert!(has_reason, "docs/dependencies.md says nothing of {dependency}, which {crate_name} uses");
        }
    }
}

#[test]
fn the_lock_file_stays_lean() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
    let packages = lock.lines().filter(|line| *line == "[[package]]").count();
    assert!(packages <= LOCKED_PACKAGES, "{packages} packages are locked, {LOCKED_PACKAGES} were expected at most");
    for refused in ["openssl", "native-tls", "aws-lc-rs", "sqlx", "sqlx-sqlite", "serde_yaml"] {
        assert!(!lock.contains(&format!("name = \"{refused}\"\n")), "{refused} came in; see deny.toml");
    }
}
