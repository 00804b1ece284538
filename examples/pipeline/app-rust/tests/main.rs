//! The program is not started where it does not know that it fits, and says why.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn start(variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipeline-api")).env_clear().envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn variable_that_is_missing_is_named() {
    let output = start(&[("DATABASE_URL", "host=127.0.0.1 user=reader dbname=none"), ("APP_ENV", "staging")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "not started: APP_SCHEMA_VERSION is not set\n");
}

#[test]
fn database_that_does_not_answer_is_no_schema_that_fits() {
    // Nobody listens at port 1, and the password is nobody's business.
    let url = "host=127.0.0.1 port=1 user=reader password=nobodys-business dbname=none";
    let output =
        start(&[("DATABASE_URL", url), ("APP_ENV", "staging"), ("APP_SCHEMA_VERSION", "1.0.0"), ("PORT", "0")]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("not started: ") && said.contains("refused"), "{said}");
    assert!(!said.contains("nobodys-business"), "{said}");
}
