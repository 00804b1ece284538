//! `make demos`: every demonstration is shown, and one that fails hides no other.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::workflows::said;

/// A folder with the project's Makefile and these demonstrations, each with what it does.
fn make(test: &str, demos: &[(&str, &str)]) -> Output {
    let folder = std::env::temp_dir().join(format!("pgrunbook-demos-{}-{test}", std::process::id()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let program = |path: PathBuf, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    // What is installed is not what this is about.
    program(folder.join("scripts/need"), "exit 0");
    for (name, text) in demos {
        program(folder.join("examples").join(name), text);
    }
    std::fs::copy(root.join("Makefile"), folder.join("Makefile")).unwrap();
    let mut command = Command::new("make");
    // `make test` may have started this: another make says where it enters.
    command.arg("demos").current_dir(&folder).env_remove("MAKELEVEL").env_remove("MAKEFLAGS");
    let output = command.output().expect("make is missing");
    std::fs::remove_dir_all(&folder).unwrap();
    output
}

#[test]
fn every_demonstration_is_shown() {
    let shown = make("all", &[("a/demo", "echo one"), ("b/demo", "echo two"), ("b/demo-of-more", "echo three")]);
    assert_eq!(
        said(&shown, 0),
        "\n#### examples/a/demo\none\n\n#### examples/b/demo\ntwo\n\n#### examples/b/demo-of-more\nthree\n"
    );
}

#[test]
fn one_that_fails_is_named_and_hides_no_other() {
    let shown = make("failed", &[("a/demo", "exit 3"), ("b/demo", "echo two")]);
    let said = said(&shown, 2);
    assert!(said.contains("two\n") && said.contains("failed: examples/a/demo\n"), "{said}");
}

#[test]
fn each_example_has_one() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for example in std::fs::read_dir(examples).unwrap().flatten().map(|entry| entry.path()) {
        let runbook = example.join("RUNBOOK.md").is_file();
        let demo = example.join("demo").metadata().is_ok_and(|file| file.permissions().mode() & 0o111 != 0);
        assert_eq!(demo, runbook, "{}", example.display());
    }
}
