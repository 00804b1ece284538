//! What the parts that read come to, without a server.

use super::*;

/// A project with one migration.
fn wish_of<T>(up: &[u8], look: impl FnOnce(&Wish<'_>, &Files, &Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let chain = folder.path().join("db");
    std::fs::create_dir(&chain).unwrap();
    std::fs::write(chain.join("0001_a.sql"), up).unwrap();
    std::fs::write(chain.join("0001_a.down.sql"), "SELECT 1;\n").unwrap();
    std::fs::write(chain.join("0001_a.verify.sql"), "SELECT 1;\n").unwrap();
    let project = Project::read(folder.path(), "[targets.main]\n", None).unwrap();
    let wish = Wish {
        project: &project,
        chains: vec![Chain::read("db", &chain).unwrap()],
        since: None,
        target: None,
        ignore: Ignore::standard(),
        smoke: Vec::new(),
        roles: Vec::new(),
        tenant_schemas: Vec::new(),
        tenant_roles: Vec::new(),
        code: None,
        major: None,
        on: None,
        large: LARGE,
        columns: Columns::LeftOut,
    };
    look(&wish, &Files { top: folder.path().to_owned(), changed: None, before: Before::default() }, folder.path())
}

/// What is longer than is read.
fn long() -> Vec<u8> {
    b"-- a line that is a comment\n".repeat(usize::try_from(LONGEST).unwrap() / 28 + 1)
}

#[test]
fn file_that_is_too_long_is_unknown_and_not_clean() {
    wish_of(&long(), |wish, files, _| {
        let mut review = Review::default();
        reading(wish, files, &mut review);
        secret(files, wish, &mut review);
        let found: Vec<_> = review.found.iter().map(|one| (one.code, one.severity)).collect();
        assert_eq!(found, [("not-read", Severity::Unknown), ("not-read", Severity::Unknown)], "{:?}", review.found);
        assert!(review.found[0].message.contains("db/0001_a.sql was not linted, it is longer than 16 MiB"));
        let said: Vec<_> = review.checks.iter().map(|one| (one.said.as_str(), one.outcome)).collect();
        let lint = ("0 changed file(s) read", Outcome::Unknown);
        assert_eq!(said, [lint, ("the new lines of 2 file(s) searched", Outcome::Unknown)]);
        assert!(review.is_unknown());
    });
}

#[test]
fn what_is_no_text_holds_no_secret_and_needs_no_reader() {
    wish_of(b"SELECT 1;\n", |wish, _, top| {
        let mut image = vec![0u8];
        image.extend(long());
        std::fs::write(top.join("big.png"), image).unwrap();
        std::fs::write(top.join("key.txt"), "API_TOKEN=ghp_0123456789abcdefghijABCDEFGHIJ0123456789\n").unwrap();
        std::os::unix::fs::symlink("nowhere", top.join("link")).unwrap();
        let lines = ["big.png", "key.txt", "link"].map(|path| (path.to_owned(), vec![(1, usize::MAX)]));
        let changed = Changed { top: top.to_owned(), lines: BTreeMap::from(lines), ..Changed::default() };
        let mut review = Review::default();
        secret(&Files { top: top.to_owned(), changed: Some(changed), before: Before::default() }, wish, &mut review);
        let found: Vec<_> = review.found.iter().map(|one| one.code).collect();
        assert_eq!((found, review.checks[0].outcome), (vec!["literal-secret"], Outcome::Failed));
    });
}

#[test]
fn finding_that_is_taken_back_leaves_the_others_to_their_checks() {
    let mut review = Review::default();
    review.nowhere(finding("a", Severity::Warning, "read"));
    review.check("lint", "");
    review.forget(|one, _| one.code == "a");
    review.nowhere(finding("b", Severity::Error, "seen"));
    review.check("forward", "");
    let outcomes: Vec<_> = review.checks.iter().map(|one| one.outcome).collect();
    assert_eq!((review.found.len(), outcomes), (1, vec![Outcome::Held, Outcome::Failed]));
}
