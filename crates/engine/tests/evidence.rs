//! Bundles: written, verified, and every tampering named.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use pgrunbook_engine::evidence::EvidenceError;
use pgrunbook_engine::evidence::verify::verify;
use pgrunbook_engine::journal::{ItemOutcome, Outcome, Sealed};
use pgrunbook_engine::{EngineError, Event, ItemAnswer, RunEnd, RunOptions, UNDO, Waiting, approval};

use crate::running::FOUR;
use crate::world::{Hand, Project};

/// A key made by `ssh-keygen`: private and public.
pub fn key(folder: &Path, name: &str) -> (String, String) {
    let path = folder.join(name);
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
        .arg(&path)
        .status();
    assert!(made.unwrap().success());
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    (read(&path), read(&path.with_extension("pub")))
}

async fn bundle(project: &Project, keys: &Path) -> (PathBuf, String) {
    let (private, public) = key(keys, "auditor");
    let run = project.begin(FOUR).await;
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    assert_eq!(project.rollback(&run, UNDO).await, RunEnd::RolledBack);
    let folder = project.folder.path().join("evidence");
    let bundle = project.engine().report(&run, &folder, Some(&private)).await.unwrap();
    assert!(bundle.signed_by.is_some());
    (folder, format!("auditor {public}"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(self::files(&path)),
            path => files.push(path),
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn bundle_is_verified_and_every_tampering_is_named() {
    let project = Project::new();
    let keys = tempfile::tempdir().unwrap();
    let (folder, allowed) = bundle(&project, keys.path()).await;
    let verdict = verify(&folder, Some(&allowed)).unwrap();
    assert_eq!((verdict.ended.as_str(), verdict.signer.as_deref()), ("rolled back", Some("auditor")));

    for path in files(&folder) {
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        let whole = std::fs::read(&path).unwrap();
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] = if changed[middle] == b'x' { b'y' } else { b'x' };
        std::fs::write(&path, &changed).unwrap();
        let wrong = verify(&folder, Some(&allowed)).unwrap_err();
        assert_eq!(wrong.file, name, "{wrong}");
        std::fs::remove_file(&path).unwrap();
        let wrong = verify(&folder, Some(&allowed)).unwrap_err();
        assert_eq!((wrong.file.as_str(), wrong.why.starts_with("it is missing")), (name.as_str(), true), "{wrong}");
        std::fs::write(&path, &whole).unwrap();
    }
    std::fs::write(folder.join("stranger"), "").unwrap();
    assert_eq!(verify(&folder, Some(&allowed)).unwrap_err().to_string(), "stranger: it is not named by the statement");
}

#[tokio::test]
async fn bundle_that_was_made_to_fit_is_found_by_its_chain_and_its_key() {
    let project = Project::new();
    let keys = tempfile::tempdir().unwrap();
    let (folder, allowed) = bundle(&project, keys.path()).await;
    // Somebody edits the journal and puts the new digests into an envelope of their own.
    let journal = folder.join("journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replacen("anna", "olga", 1)).unwrap();
    reseal(&folder);
    let wrong = verify(&folder, None).unwrap_err();
    assert_eq!(wrong.to_string(), "journal.jsonl: the chain breaks at line 1");
    assert_eq!(verify(&folder, Some(&allowed)).unwrap_err().to_string(), "statement.dsse.json: it is not signed");

    // A whole bundle, signed by somebody else.
    let (folder, _) = bundle(&project, tempfile::tempdir().unwrap().path()).await;
    let wrong = verify(&folder, Some(&allowed)).unwrap_err();
    assert!(wrong.why.starts_with("nobody in allowed_signers signs with its key"), "{wrong}");
    assert!(verify(&folder, None).unwrap().signed_by.is_some());
}

#[tokio::test]
async fn report_that_says_something_else_than_the_journal_is_found() {
    let project = Project::new();
    let keys = tempfile::tempdir().unwrap();
    let (folder, _) = bundle(&project, keys.path()).await;
    let report = folder.join("report.md");
    let text = std::fs::read_to_string(&report).unwrap();
    std::fs::write(&report, text.replace("**rolled back**", "**completed**")).unwrap();
    reseal(&folder);
    assert_eq!(verify(&folder, None).unwrap_err().to_string(), "report.md: it does not say what the journal says");
}

/// Puts the digests of the files as they are into the statement, without a signature.
fn reseal(folder: &Path) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};
    let path = folder.join("statement.dsse.json");
    let mut envelope: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let mut statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    for subject in statement["subject"].as_array_mut().unwrap() {
        let bytes = std::fs::read(folder.join(subject["name"].as_str().unwrap())).unwrap();
        subject["digest"]["sha256"] = format!("{:x}", Sha256::digest(bytes)).into();
    }
    envelope["payload"] = STANDARD.encode(statement.to_string()).into();
    envelope["signatures"] = serde_json::json!([]);
    std::fs::write(&path, envelope.to_string()).unwrap();
}

#[tokio::test]
async fn page_holds_nothing_that_a_database_could_put_there() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    let slip = "<script>alert(1)</script> | [x](javascript:alert(1)) `<b>`";
    let error = pgrunbook_engine::StepError::failed("slip", slip);
    project.world.fail("r", Some(error));
    project.run(&run).await;
    let folder = project.folder.path().join("evidence");
    project.engine().report(&run, &folder, None).await.unwrap();
    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "the text is shown");
    for tag in ["<script", "href=\"javascript", "<b>", "src=", "http://", "https://", "@import", "url("] {
        assert!(!page.contains(tag), "{tag}");
    }
    assert_eq!(verify(&folder, None).unwrap().ended, "not ended");
}

#[tokio::test]
async fn protected_run_waits_for_approvals_that_count() {
    let keys = tempfile::tempdir().unwrap();
    let (bert, bert_public) = key(keys.path(), "bert");
    let (anna, anna_public) = key(keys.path(), "anna");
    let (olga, _) = key(keys.path(), "olga");
    let mut project = Project::new();
    project.environment.approvals = 1;
    project.people.allowed_signers = Some(format!("bert {bert_public}anna {anna_public}"));
    let run = project.begin(FOUR).await;
    let RunEnd::Waiting { on: Waiting::Approvals { missing: 1, .. } } = project.run(&run).await else { panic!() };

    let state = project.engine().status(&run).await.unwrap().state;
    let text = approval::text(&state.plan.plan_digest);
    let sign =
        |key: &str, text: &str| pgrunbook_engine::signers::sign(approval::NAMESPACE, text.as_bytes(), key).unwrap();
    let approve = |principal: &str, signature: &str| {
        approval::approve(&state.plan, principal, signature, &project.people, jiff::Timestamp::now())
    };
    let why = |result: Result<_, pgrunbook_engine::signers::SignatureError>| {
        result.map(|_: pgrunbook_engine::step::Approval| ()).unwrap_err().to_string()
    };
    assert!(why(approve("bert", &sign(&olga, &text))).contains("bert is not allowed to sign with this key"));
    assert_eq!(
        why(approve("bert", &sign(&bert, &approval::text(&"0".repeat(64))))),
        "the signature is not one over this text"
    );
    // The operator's own approval is none, although the signature is right.
    let own = approve("anna", &sign(&anna, &text)).unwrap();
    let with = |approval| RunOptions { approvals: vec![approval], ..RunOptions::default() };
    let refused = project.engine().run(&run, &with(own), &Hand::default()).await.unwrap_err();
    assert!(
        matches!(&refused, EngineError::Approval { why, .. } if why == "whoever runs it cannot approve it"),
        "{refused}"
    );

    let approval = approve("bert", &sign(&bert, &text)).unwrap();
    // A forged one, with the name of somebody who may.
    let forged = pgrunbook_engine::step::Approval { signature: sign(&olga, &text), ..approval.clone() };
    assert!(project.engine().run(&run, &with(forged), &Hand::default()).await.is_err());
    assert_eq!(project.engine().run(&run, &with(approval), &Hand::default()).await.unwrap(), RunEnd::Completed);

    let folder = project.folder.path().join("evidence");
    project.engine().report(&run, &folder, None).await.unwrap();
    assert_eq!(verify(&folder, None).unwrap().approvals, ["bert"]);
    // A second plan of the same files is approved anew.
    let again = project.begin(&FOUR.replace("# Four", "# Five")).await;
    assert!(matches!(project.run(&again).await, RunEnd::Waiting { .. }));
}

/// Edits the events, links them anew, and makes plan and statement fit: all that somebody without a key can do.
pub fn remake(folder: &Path, edit: impl FnOnce(&mut Vec<Event>)) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let path = folder.join("journal.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let sealed: Vec<Sealed> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut events: Vec<Event> = sealed.iter().map(|sealed| sealed.event.clone()).collect();
    edit(&mut events);
    if let Event::Begun { plan, .. } = &events[0] {
        std::fs::write(
            folder.join("plan.json"),
            serde_json::to_string_pretty(&serde_json::to_value(plan).unwrap()).unwrap() + "\n",
        )
        .unwrap();
    }
    let mut chain: Vec<Sealed> = Vec::new();
    for (event, before) in events.into_iter().zip(&sealed) {
        chain.push(Sealed::seal(event, before.at, chain.last()));
    }
    let lines: String = chain.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
    std::fs::write(&path, lines).unwrap();
    reseal(folder);
    let path = folder.join("statement.dsse.json");
    let mut envelope: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let mut statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    let head = chain.last().unwrap().head();
    statement["predicate"]["journal"] = serde_json::json!({ "events": head.seq, "head": head.hash });
    envelope["payload"] = STANDARD.encode(statement.to_string()).into();
    std::fs::write(&path, envelope.to_string()).unwrap();
}

/// A checklist line, and a step after which there is no way back.
const ONE_WAY: &str = r#"# One way

## First

- [ ] The window is open

```toml step
transactional = "t"
target = "main"
undo = "one-way: the old rows are gone"
```
"#;

#[tokio::test]
async fn journal_that_was_linked_anew_is_found_by_what_it_says() {
    let keys = tempfile::tempdir().unwrap();
    let (bert, bert_public) = key(keys.path(), "bert");
    let mut project = Project::new();
    project.people.allowed_signers = Some(format!("bert {bert_public}"));
    let run = project.begin(ONE_WAY).await;
    let state = project.engine().status(&run).await.unwrap().state;
    let text = approval::text(&state.plan.plan_digest);
    let signature = pgrunbook_engine::signers::sign(approval::NAMESPACE, text.as_bytes(), &bert).unwrap();
    let now = jiff::Timestamp::now();
    let approval = approval::approve(&state.plan, "bert", &signature, &project.people, now).unwrap();
    let answer = ItemAnswer { outcome: ItemOutcome::NotApplicable, note: Some("at night".to_owned()) };
    let hand = Hand { items: vec![("The window", answer)], ..Hand::default() };
    let waits = project.engine().run(&run, &RunOptions::default(), &hand).await.unwrap();
    assert!(matches!(waits, RunEnd::Waiting { on: Waiting::Approvals { .. } }), "{waits:?}");
    let options = RunOptions { approvals: vec![approval], ..RunOptions::default() };
    assert_eq!(project.engine().run(&run, &options, &hand).await.unwrap(), RunEnd::Completed);

    let folder = project.folder.path().join("evidence");
    let check = async |edit: fn(&mut Event), wanted: &str| {
        project.engine().report(&run, &folder, None).await.unwrap();
        assert!(verify(&folder, None).is_ok());
        remake(&folder, |events| events.iter_mut().for_each(edit));
        assert_eq!(verify(&folder, None).unwrap_err().to_string(), wanted);
    };
    check(
        |event| {
            if let Event::Approved { approval } = event {
                approval.principal = "anna".to_owned();
            }
        },
        "journal.jsonl: the approval by anna: the operator approved their own run",
    )
    .await;
    check(
        |event| {
            if let Event::Approved { approval } = event {
                approval.signature = "nonsense".to_owned();
            }
        },
        "journal.jsonl: the approval by bert: the signature cannot be read: PEM preamble contains invalid data (NUL byte)",
    )
    .await;
    check(
        |event| {
            if let Event::Approved { approval } = event {
                approval.key = "SHA256:another".to_owned();
            }
        },
        "journal.jsonl: the approval by bert: it is by another key than it names",
    )
    .await;
    check(
        |event| {
            if let Event::Item { note, .. } = event {
                *note = None;
            }
        },
        "journal.jsonl: event 3: item first/60da1d17 was left out without a reason",
    )
    .await;
    check(
        |event| {
            if let Event::Begun { plan, .. } = event {
                plan.protected = true;
            }
            if let Event::Item { in_advance, .. } = event {
                *in_advance = true;
            }
        },
        "journal.jsonl: event 3: item first/60da1d17 was answered in advance in a protected environment",
    )
    .await;
    check(
        |event| {
            if let Event::Outcome { outcome: Outcome::Done { evidence, .. }, .. } = event {
                evidence.summary.clear();
            }
        },
        "journal.jsonl: step `t` is done and recorded nothing",
    )
    .await;
    check(
        |event| {
            if let Event::Begun { plan, .. } = event {
                plan.sources[0].text.push_str("\nMore.\n");
            }
        },
        "plan.json: its digests are not those of its content",
    )
    .await;
    check(
        |event| {
            if let Event::Begun { operator, .. } = event {
                *operator = "carl".to_owned();
            }
        },
        "report.html: it does not say what the journal says",
    )
    .await;

    project.engine().report(&run, &folder, None).await.unwrap();
    remake(&folder, |events| events.retain(|event| !matches!(event, Event::Approved { .. })));
    let wrong = verify(&folder, None).unwrap_err();
    assert_eq!(wrong.to_string(), "journal.jsonl: step `t` cannot be taken back, and began without an approval");
    project.engine().report(&run, &folder, None).await.unwrap();
    remake(&folder, |events| events.retain(|event| !matches!(event, Event::Intent { .. })));
    assert_eq!(verify(&folder, None).unwrap_err().file, "journal.jsonl", "an outcome without its intent");
}

#[tokio::test]
async fn folder_with_anything_but_a_bundle_is_left_alone() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    let folder = project.folder.path().join("evidence");
    std::fs::create_dir(&folder).unwrap();
    project.engine().report(&run, &folder, None).await.unwrap();
    // A bundle is replaced, also one that somebody changed.
    std::fs::write(folder.join("report.md"), "changed").unwrap();
    project.engine().report(&run, &folder, None).await.unwrap();
    assert!(verify(&folder, None).is_ok());

    std::fs::write(folder.join("thesis.tex"), "years of work").unwrap();
    let refused = project.engine().report(&run, &folder, None).await.unwrap_err();
    assert!(matches!(&refused, EvidenceError::NotABundle { file, .. } if file == "thesis.tex"), "{refused}");
    assert_eq!(std::fs::read_to_string(folder.join("thesis.tex")).unwrap(), "years of work");
    let left: Vec<_> = std::fs::read_dir(project.folder.path()).unwrap().flatten().map(|it| it.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("partial")), "{left:?}");
}
