//! What people are told: of itself, by a step and by hand, to real receivers.

use std::collections::BTreeSet;

use crate::crash::each;
use crate::place::{Place, cluster};
use crate::receiver::{Tls, certificate, http, smtp};

const RUNBOOK: &str = "# Housekeeping

```toml runbook
vars.impact = \"ingest stands still\"
```

## Change

```sql step
-- apply: change    target: main    undo: unchange
CREATE TABLE changed ();
```

```sql undo
-- apply: unchange    target: main
DROP TABLE changed;
```
";

/// The words of a rollback, as somebody wrote them down before.
const TEMPLATE: &str = "Subject: [ROLLBACK INITIATED] ${run.title}

Status: Rolling back due to ${reason}
Impact: ${impact}
Last failure: ${failed_step}

Next word by ${update_due}.
";

const PROJECT: &str = "[targets.main]
url = \"env:DATABASE_URL\"

[channels.ops]
webhook = \"env:OPS_HOOK\"

[templates.rollback-initiated]
file = \"rollback.txt\"

[environments.production.notify]
started = { channel = \"ops\" }
failed = { channel = \"ops\" }
completed = { channel = \"ops\" }
rollback = { channel = \"ops\", template = \"rollback-initiated\", update_every = \"15m\" }
rolled_back = { channel = \"ops\" }
";

fn prepared(mut place: Place, hook: &str) -> Place {
    place.env.push(("OPS_HOOK".to_owned(), hook.to_owned()));
    place.write("pgrunbook.toml", PROJECT);
    place.write("rollback.txt", TEMPLATE);
    place.write("RUNBOOK.md", RUNBOOK);
    place
}

fn fresh(hook: &str) -> Place {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    prepared(Place::on(runtime.block_on(async { cluster().await.fresh_database("notify").await.unwrap() })), hook)
}

/// The keys without the run.
fn told(keys: &[String]) -> Vec<&str> {
    keys.iter().map(|key| key.split_once('/').unwrap().1).collect()
}

const BACK: [&str; 5] = ["rollback", "--path", "undo", "--reason", "p95 doubled"];

#[tokio::test]
async fn rollback_is_told_in_the_words_of_the_project_to_every_address_of_the_channel() {
    let (hook, mail) = (http(), smtp(Tls::Never, std::path::Path::new("/")));
    let mut place = prepared(Place::new().await, &format!("{}/hook/s3cr3t-hook", hook.base));
    place.env.push(("SLACK".to_owned(), format!("{}/services/s3cr3t-slack", hook.base)));
    place.env.push(("SMTP".to_owned(), format!("smtp://{}?tls=none", mail.address)));
    let all = "webhook = \"env:OPS_HOOK\"\nslack = \"env:SLACK\"\nsmtp = \"env:SMTP\"\nfrom = \"pgrunbook <runs@example.com>\"\nto = [\"ops@example.com\", \"cto@example.com\"]";
    place.write("pgrunbook.toml", &PROJECT.replace("webhook = \"env:OPS_HOOK\"", all));
    place.call(&["run", "RUNBOOK.md"]).done();
    let run = place.run_id();
    let back = place.call(&BACK).done();
    assert!(back.out.contains("· told rollback/ops/slack: it answered 200"), "{}", back.out);

    let asked = hook.asked();
    let of = |key: &str| {
        let header = format!("idempotency-key: {run}/{key}\r\n");
        let found: Vec<_> = asked.iter().filter(|asked| asked.contains(&header)).collect();
        assert_eq!(found.len(), 1, "{key}: {asked:#?}");
        let body: serde_json::Value = serde_json::from_str(found[0].split_once("\r\n\r\n").unwrap().1).unwrap();
        body
    };
    let body = of("rollback/ops/webhook");
    assert_eq!(body["subject"], "[ROLLBACK INITIATED] Housekeeping");
    let text = body["text"].as_str().unwrap();
    let words =
        "Status: Rolling back due to p95 doubled\nImpact: ingest stands still\nLast failure: none\n\nNext word by ";
    assert!(text.starts_with(words) && text.ends_with(" UTC."), "{text}");
    assert_eq!((body["run"].as_str(), body["occasion"].as_str()), (Some(run.as_str()), Some("rollback")));
    let slack = of("rollback/ops/slack")["text"].as_str().unwrap().to_owned();
    assert!(slack.starts_with("*[ROLLBACK INITIATED] Housekeeping*\nStatus: Rolling back"), "{slack}");

    let lines = mail.told();
    let has = |line: &str| assert!(lines.iter().any(|told| told == line), "{line}: {lines:#?}");
    has("MAIL FROM:<runs@example.com>");
    has("RCPT TO:<cto@example.com>");
    has("Subject: [ROLLBACK INITIATED] Housekeeping");
    has(&format!("Message-ID: <{run}-rollback-ops-smtp@pgrunbook>"));
    has("Auto-Submitted: auto-generated");
    has("Impact: ingest stands still");

    // The database and its log.
    let files = std::fs::read_dir(place.path(".pgrunbook")).unwrap().map(|file| file.unwrap().path());
    let journal: Vec<u8> = files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect();
    let journal = String::from_utf8_lossy(&journal);
    assert!(journal.contains("rolled-back/ops/smtp") && !journal.contains("s3cr3t"));
    place.call(&["report", &run]).done();
    let report = place.read(&format!("evidence/{run}/report.md"));
    assert!(
        report.contains(
            "| rollback | ops (slack) | \\[ROLLBACK INITIATED\\] Housekeeping | delivered: it answered 200 |"
        ),
        "{report}"
    );
    place.call(&["verify", &format!("evidence/{run}")]).done();
}

#[test]
fn rollback_that_is_killed_at_any_point_is_told_by_the_same_keys() {
    let hook = http();
    let undisturbed = fresh(&hook.base);
    undisturbed.call(&["run", "RUNBOOK.md"]).done();
    let (said, points) = undisturbed.points(&BACK);
    said.done();
    let keys = hook.keys();
    assert_eq!(
        told(&keys),
        ["started/ops/webhook", "completed/ops/webhook", "rollback/ops/webhook", "rolled-back/ops/webhook"]
    );
    assert!(points > 15, "{points} points");
    each(&undisturbed.deaths(), |at| {
        let hook = http();
        let place = fresh(&hook.base);
        place.call(&["run", "RUNBOOK.md"]).done();
        let died = place.call_and_die(&BACK, at);
        assert_eq!(died.code, None, "point {at} was not reached: {}\n{}", died.out, died.err);
        let run = place.run_id();
        // Whatever it was: turn back, go on going back, or tell what is still owed.
        let turned = place.call(&["show"]).out.contains("Going back on");
        let again: &[&str] = if turned { &["resume", &run] } else { &BACK };
        place.call(again).done();
        let keys = hook.keys();
        let wanted: BTreeSet<&str> =
            ["started/ops/webhook", "completed/ops/webhook", "rollback/ops/webhook", "rolled-back/ops/webhook"].into();
        assert_eq!(told(&keys).into_iter().collect::<BTreeSet<_>>(), wanted, "killed at point {at}");
        assert!(keys.len() <= wanted.len() + 1, "killed at point {at}: only what was under way came twice: {keys:?}");
        let shown = place.call(&["show", "--format", "json"]).done().out;
        let due = shown.lines().filter(|line| line.contains("\"event\":\"notice_due\"")).count();
        assert_eq!(due, wanted.len(), "killed at point {at}: each is owed once");
    });
}

#[tokio::test]
async fn channel_that_is_down_keeps_nobody_from_going_back() {
    let hook = http();
    let place = prepared(Place::new().await, &format!("{}/s3cr3t-hook", hook.base));
    place.call(&["run", "RUNBOOK.md"]).done();
    hook.answer(503);
    let back = place.call(&BACK).done();
    assert!(back.out.contains("✗ rollback/ops/webhook was not delivered: it answered 503"), "{}", back.out);
    assert_eq!(place.value("SELECT to_regclass('changed') IS NULL").await, "t");
    hook.answer(200);
    let run = place.run_id();
    place.call(&["resume", &run]).done();
    assert_eq!(
        told(&hook.keys()).iter().filter(|key| **key == "rolled-back/ops/webhook").count(),
        3,
        "down, down, told"
    );
    let before = hook.keys().len();
    place.call(&["resume", &run]).done();
    assert_eq!(hook.keys().len(), before, "nothing is owed any more");

    // Nobody listens there at all.
    let place = prepared(Place::new().await, "http://127.0.0.1:1/s3cr3t-hook");
    let ran = place.call(&["run", "RUNBOOK.md"]).done();
    assert!(ran.out.contains("✗ started/ops/webhook was not delivered: "), "{}", ran.out);
    assert!(!ran.out.contains("s3cr3t") && !ran.err.contains("s3cr3t"), "{}\n{}", ran.out, ran.err);
}

#[tokio::test]
async fn word_by_hand_is_recorded_in_the_run() {
    let hook = http();
    let place = prepared(Place::new().await, &hook.base);
    place.call(&["run", "RUNBOOK.md"]).done();
    let run = place.run_id();
    let said = place.call(&["notify", &run, "--channel", "ops", "--text", "half of it is back", "--as", "olga"]).done();
    assert_eq!(said.out, "ops (webhook) told: it answered 200\n");
    place.call(&["notify", "-", "--channel", "ops", "--subject", "Window", "--text", "it opens at ten"]).done();
    let asked = hook.asked();
    assert!(asked.iter().any(|asked| asked.contains("half of it is back") && asked.contains("[UPDATE] Housekeeping")));
    assert!(asked.last().unwrap().contains("\"subject\":\"Window\""), "{asked:#?}");
    let shown = place.call(&["show", &run]).done().out;
    assert!(shown.contains("· told update/") && !shown.contains("it opens at ten"), "{shown}");
    place.call(&["report", &run]).done();
    let report = place.read(&format!("evidence/{run}/report.md"));
    assert!(report.contains("| update, by olga | ops (webhook) |"), "{report}");

    hook.answer(410);
    let lost = || place.call(&["notify", &run, "--channel", "ops", "--text", "again"]);
    let (gone, before) = (lost(), hook.asked().len());
    assert_eq!((gone.code, gone.out.as_str()), (Some(1), "ops (webhook) NOT told: it answered 410\n"));
    // The page of a login is there for everybody, and tells nobody.
    hook.answer(302);
    let led_away = lost();
    assert_eq!((led_away.code, led_away.out.as_str()), (Some(1), "ops (webhook) NOT told: it answered 302\n"));
    assert_eq!(hook.asked().len(), before + 1, "nobody asked for /login: {:#?}", hook.asked());
    for (args, why) in [
        (&["--channel", "oops", "--text", "x"][..], "there is no channel `oops`: pgrunbook.toml has ops"),
        (&["--channel", "ops", "--template", "y"], "there is no template `y`"),
        // Nothing is promised of a run that went forward.
        (&["--channel", "ops", "--template", "rollback-initiated"], "no update is promised"),
        (&["--channel", "ops"], "required"),
    ] {
        let refused = place.call(&[&["notify", run.as_str()][..], args].concat());
        assert_eq!(refused.code, Some(2), "{args:?}");
        assert!(refused.err.contains(why), "{args:?}: {}", refused.err);
    }
}

#[tokio::test]
async fn template_that_does_not_fit_the_runbook_is_refused_before_anything_is_touched() {
    let place = prepared(Place::new().await, "http://127.0.0.1:1");
    place.write("rollback.txt", &TEMPLATE.replace("${impact}", "${impcat}"));
    let refused = place.call(&["plan", "RUNBOOK.md"]);
    assert_eq!(refused.code, Some(2));
    let why =
        "what is told when a run is `rollback`: it speaks of `impcat`, which is neither a variable of the runbook nor";
    assert!(refused.err.contains(why), "{}", refused.err);
    place.write("rollback.txt", TEMPLATE);
    let step = "\n```toml step\nnotify = \"done\"\nchannel = \"ops\"\ntemplate = \"done\"\n```\n";
    place.write("RUNBOOK.md", &format!("{RUNBOOK}{step}"));
    let refused = place.call(&["plan", "RUNBOOK.md"]);
    assert!(refused.err.contains("step `done`: there is no template `done`"), "{}", refused.err);
    let with = |text: &str| format!("{PROJECT}\n[templates.done]\nsubject = \"Done\"\ntext = \"{text}\"\n");
    place.write("pgrunbook.toml", &with("${nothing}"));
    let refused = place.call(&["plan", "RUNBOOK.md"]);
    assert!(refused.err.contains("template `done`: it speaks of `nothing`"), "{}", refused.err);
    place.write("pgrunbook.toml", &with("${impact}"));
    place.call(&["plan", "RUNBOOK.md"]).done();
    place.write("pgrunbook.toml", &PROJECT.replace("channel = \"ops\" }", "channel = \"oops\" }"));
    let refused = place.call(&["plan", "RUNBOOK.md"]);
    assert!(refused.err.contains("there is no channel `oops`"), "{}", refused.err);
}

#[tokio::test]
async fn step_tells_a_channel_and_a_rehearsal_tells_nobody() {
    let hook = http();
    let place = prepared(Place::new().await, &hook.base);
    let step =
        "\n```toml step\nnotify = \"changed\"\nchannel = \"ops\"\nsubject = \"Changed\"\ntext = \"${impact}\"\n```\n";
    place.write("RUNBOOK.md", &format!("{RUNBOOK}{step}"));
    place.call(&["rehearse", "RUNBOOK.md"]).done();
    assert!(hook.asked().is_empty(), "{:#?}", hook.asked());
    let ran = place.call(&["run", "RUNBOOK.md"]).done();
    assert!(ran.out.contains("✓ changed  sent, it answered 200"), "{}", ran.out);
    let keys = hook.keys();
    assert_eq!(told(&keys), ["started/ops/webhook", "changed/ops/webhook", "completed/ops/webhook"]);
    assert!(hook.asked()[1].contains("\"subject\":\"Changed\"") && hook.asked()[1].contains("ingest stands still"));
    for wrong in ["channel = \"ops\"", "channel = \"ops\"\nurl = \"env:X\"\ntext = \"x\"", "text = \"x\""] {
        place.write("wrong.md", &format!("# W\n\n## P\n\n```toml step\nnotify = \"w\"\n{wrong}\n```\n"));
        let refused = place.call(&["lint", "wrong.md"]);
        assert_ne!(refused.code, Some(0), "{wrong}");
    }
}

/// One word to a channel with mail alone: exit code, and all that was said.
fn mailed(place: &Place, url: &str, to: &str) -> (Option<i32>, String) {
    place.write(
        "pgrunbook.toml",
        &format!("[channels.ops]\nsmtp = \"env:SMTP\"\nfrom = \"runs@example.com\"\nto = [\"{to}\"]\n[targets.main]\nurl = \"env:DATABASE_URL\"\n"),
    );
    let mut command = place.command(&["notify", "-", "--channel", "ops", "--text", "hello"]);
    let said = crate::place::Said::of(command.env("SMTP", url).output().unwrap());
    (said.code, format!("{}{}", said.out, said.err))
}

#[tokio::test]
async fn mail_is_encrypted_or_not_sent() {
    let mut place = Place::new().await;
    certificate(place.folder.path());
    let (open, starts, wrapped) = (
        smtp(Tls::Never, place.folder.path()),
        smtp(Tls::Upgraded, place.folder.path()),
        smtp(Tls::FirstByte, place.folder.path()),
    );
    let url = |scheme: &str, server: &crate::receiver::Smtp| format!("{scheme}://anna:s3cr3t-w0rd@{}", server.address);
    let sent = |server: &crate::receiver::Smtp| server.told().iter().any(|line| line.starts_with("MAIL FROM"));

    // The certificate is nobody's whom this machine trusts.
    for (scheme, server) in [("smtp", &starts), ("smtps", &wrapped)] {
        let (code, said) = mailed(&place, &url(scheme, server), "ops@example.com");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("ops (smtp) NOT told: ") && !said.contains("s3cr3t"), "{said}");
        assert!(!sent(server), "{:?}", server.told());
    }
    let trusted = place.path("server.crt").display().to_string();
    place.env.push(("SSL_CERT_FILE".to_owned(), trusted));
    for (scheme, server) in [("smtp", &starts), ("smtps", &wrapped)] {
        let (code, said) = mailed(&place, &url(scheme, server), "ops@example.com");
        assert_eq!((code, said.as_str()), (Some(0), "ops (smtp) told: it answered 250\n"));
        let lines = server.told();
        assert!(sent(server) && lines.iter().any(|line| line == "hello"), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("AUTH PLAIN ")), "{lines:#?}");
    }
    let lines = starts.told();
    let place_of = |what: &str| lines.iter().rposition(|line| line.starts_with(what)).unwrap();
    assert!(place_of("STARTTLS") < place_of("AUTH") && place_of("AUTH") < place_of("MAIL"), "{lines:#?}");

    // A server that does not encrypt is told nothing: neither the password nor the mail.
    let (code, said) = mailed(&place, &url("smtp", &open), "ops@example.com");
    assert_eq!(code, Some(1));
    assert!(said.contains("NOT told: ") && !said.contains("s3cr3t"), "{said}");
    let lines = open.told();
    assert!(!sent(&open) && !lines.iter().any(|line| line.starts_with("AUTH")), "{lines:#?}");
    // Unless the URL says so, and then without a password.
    let (code, _) = mailed(&place, &format!("smtp://{}?tls=none", open.address), "ops@example.com");
    assert!(code == Some(0) && sent(&open));
    let (code, said) = mailed(&place, &format!("{}?tls=none", url("smtp", &open)), "ops@example.com");
    assert!(code == Some(1) && said.contains("a password in the clear") && !said.contains("s3cr3t"), "{said}");
}

#[tokio::test]
async fn mail_that_is_refused_says_why() {
    let place = Place::new().await;
    let open = smtp(Tls::Never, place.folder.path());
    let (code, said) = mailed(&place, &format!("smtp://{}?tls=none", open.address), "nobody@example.com");
    assert_eq!(code, Some(1));
    assert!(said.contains("the mail server refused it: 550 no such mailbox"), "{said}");
    let (code, said) = mailed(&place, "smtp://localhost:1?tls=none", "ops@example.com");
    assert_eq!(code, Some(1));
    assert!(said.contains("the mail server could not be spoken to: "), "{said}");
    let (code, said) = mailed(&place, "nonsense s3cr3t-w0rd", "ops@example.com");
    assert!(code == Some(1) && said.contains("the SMTP URL cannot be used") && !said.contains("s3cr3t"), "{said}");
}

/// Waits for a condition, and not longer than a minute.
#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{what}");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

/// Which of the overdue updates the channel was told of.
fn told_numbers(keys: &[String]) -> BTreeSet<usize> {
    let overdue = keys.iter().filter_map(|key| key.split_once("/overdue/"));
    overdue.map(|(_, rest)| rest.split('/').next().unwrap().parse().unwrap()).collect()
}

/// A way back that goes on when somebody says how: `yes`, or anything else.
const SLOWLY: &str = "
## Rollback: slowly

```toml step
sh = \"wait-for-a-word\"
run = \"for i in $(seq 1200); do [ ! -e word ] || break; sleep 0.05; done; grep -q yes word\"
undo = \"none: it only waits\"
```
";

#[tokio::test]
async fn promised_update_is_reminded_of_while_it_goes_back_and_while_it_stands() {
    let hook = http();
    let place = prepared(Place::new().await, &hook.base);
    place.write("RUNBOOK.md", &format!("{RUNBOOK}{SLOWLY}"));
    let often = "update_every = \"1s\", overdue_after = \"5s\"";
    place.write("pgrunbook.toml", &PROJECT.replace("update_every = \"15m\"", often));
    place.call(&["run", "RUNBOOK.md"]).done();
    let run = place.run_id();
    let overdue = || told_numbers(&hook.keys()).len();
    let started = |args: &[&str]| {
        let mut command = place.command(args);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let ended = |child: std::process::Child| crate::place::Said::of(child.wait_with_output().unwrap());

    let going = started(&["rollback", "--path", "rollback-slowly", "--reason", "p95 doubled"]);
    until("the channel is told that an update is overdue", || overdue() > 0);
    let asked = hook.asked().into_iter().find(|asked| asked.contains("/overdue/1/")).unwrap();
    assert!(asked.contains("[UPDATE OVERDUE] Housekeeping") && asked.contains("next word by "), "{asked}");
    place.write("word", "no");
    let blocked = ended(going);
    assert_eq!(blocked.code, Some(1), "{}\n{}", blocked.out, blocked.err);
    assert!(blocked.out.contains("! an update is due in channel `ops`: pgrunbook notify"), "{}", blocked.out);
    for said in [
        "An update was promised in channel `ops`: it ",
        &format!("\n  pgrunbook notify {run} --channel ops --text \"...\"\n"),
        &format!("\n  pgrunbook watch {run} --remind\n"),
    ] {
        assert!(blocked.out.contains(said), "{said}: {}", blocked.out);
    }
    let status = place.call(&["status", &run]).done().out;
    assert!(status.contains(&format!("pgrunbook watch {run} --remind")), "{status}");

    // Nobody is at work on it: whoever watches has the channel told.
    let told = overdue();
    let watching = started(&["watch", &run, "--remind"]);
    until("the channel is told again", || overdue() > told);
    place.write("word", "yes");
    let back = place.call(&["resume", &run]).done();
    assert!(!back.out.contains("An update was promised"), "{}", back.out);
    let watched = ended(watching);
    assert_eq!(watched.code, Some(0), "it ends with the run: {}\n{}", watched.out, watched.err);
    assert!(watched.out.contains(&format!("· told overdue/{}/ops/webhook", told + 1)), "{}", watched.out);
    let keys = hook.keys();
    let numbers = told_numbers(&keys);
    assert_eq!(numbers, (1..=numbers.len()).collect(), "one after the other: {keys:?}");
}

#[tokio::test]
async fn way_back_is_measured_and_held_against_what_is_declared() {
    let place = prepared(Place::new().await, "http://127.0.0.1:1");
    place.write("pgrunbook.toml", "[targets.main]\nurl = \"env:DATABASE_URL\"\n");
    let with = |limit: &str| RUNBOOK.replace("vars.impact", &format!("{limit}\nvars.impact"));
    for (limit, sentence, held) in [
        ("rollback_within = \"1h\"", ": held, within 60 min.", serde_json::json!(true)),
        ("rollback_within = \"1ms\"", ": NOT HELD, it was to take at most 1 ms.", serde_json::json!(false)),
        ("", "; how long it may take is not declared (`rollback_within`).", serde_json::Value::Null),
    ] {
        place.write("RUNBOOK.md", &with(limit));
        place.call(&["run", "RUNBOOK.md"]).done();
        let back = place.call(&BACK).done().out;
        assert!(back.contains("Rolled back.\nThe way back took ") && back.contains(sentence), "{limit}: {back}");
        let run = place.run_id();
        let status: serde_json::Value =
            serde_json::from_str(place.call(&["status", &run, "--format", "json"]).done().out.trim()).unwrap();
        assert_eq!(status["way_back"]["held"], held, "{limit}: {status}");
        assert!(status["way_back"]["took_ms"].is_u64(), "{status}");
        place.call(&["report", &run]).done();
        assert!(place.read(&format!("evidence/{run}/report.md")).contains(sentence), "{limit}");
    }
    let plan = place.call(&["plan", "RUNBOOK.md"]).done().out;
    assert!(plan.contains("Way back: how long it may take is not declared"), "{plan}");
}
