//! Approvals, reports, verification.

use crate::place::Place;

pub fn key(place: &Place, name: &str) {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
        .arg(place.path(name))
        .status()
        .unwrap();
    assert!(made.success());
}

#[tokio::test]
async fn plan_is_approved_run_and_proven() {
    let place = Place::new().await;
    place.call(&["init"]).done();
    key(&place, "bert");
    key(&place, "auditor");
    let signers = format!("bert {}auditor {}", place.read("bert.pub"), place.read("auditor.pub"));
    place.write("allowed_signers", &signers);
    place.write(
        "pgrunbook.toml",
        "[project]\nallowed_signers = \"allowed_signers\"\n[targets.main]\nurl = \"env:DATABASE_URL\"\n[environments.production]\napprovals = 1\n",
    );
    place.call(&["plan", "RUNBOOK.md", "--out", "plan.json"]).done();
    let waits = place.call(&["run", "RUNBOOK.md", "--plan", "plan.json"]);
    assert_eq!(waits.code, Some(3), "{}", waits.err);
    let shown = place.call(&["approve", "plan.json"]);
    assert_eq!(shown.code, Some(3));
    assert!(shown.out.contains("pgrunbook approval of plan "), "{}", shown.out);
    let stranger = place.call(&["approve", "plan.json", "--as", "olga", "--key", "bert"]);
    assert_eq!(stranger.code, Some(2));
    assert!(stranger.err.contains("olga is not allowed to sign with this key"), "{}", stranger.err);
    place.call(&["approve", "plan.json", "--as", "bert", "--key", "bert"]).done();
    place.call(&["resume"]).done();

    let run = place.run_id();
    place.call(&["report", &run, "--key", "auditor"]).done();
    let folder = format!("evidence/{run}");
    let verified = place.call(&["verify", &folder, "--signers", "allowed_signers"]).done();
    assert!(verified.out.contains("approvals: bert\nsigned by auditor (SHA256:"), "{}", verified.out);
    let report = format!("{folder}/report.md");
    let text = place.read(&report);
    place.write(&report, &format!("{text}\nAnd all was well.\n"));
    let wrong = place.call(&["verify", &folder]);
    assert_eq!(wrong.code, Some(1));
    assert_eq!(
        wrong.err,
        "error: this bundle cannot be trusted: report.md: it was changed: its digest is not the one in the statement\n"
    );

    // What was approved is this content: an edit voids it, and is named.
    let runbook = place.read("RUNBOOK.md");
    place.write("RUNBOOK.md", &runbook.replace("Add a notes table", "Add a table"));
    let moved = place.call(&["run", "RUNBOOK.md", "--plan", "plan.json"]);
    assert_eq!(moved.code, Some(2));
    assert!(
        moved.err.contains("-# Add a notes table\n+# Add a table") && moved.err.contains("RUNBOOK.md was edited"),
        "{}",
        moved.err
    );
}

#[tokio::test]
async fn report_names_the_rehearsal() {
    let place = Place::new().await;
    place.call(&["init"]).done();
    place.call(&["rehearse", "RUNBOOK.md"]).done();
    let rehearsal = place.run_id();
    place.call(&["run", "RUNBOOK.md"]).done();
    let run = place.call(&["status"]).out.lines().find(|line| !line.contains("rehearsal")).unwrap()[..20].to_owned();
    place.call(&["report", &run]).done();
    let report = place.read(&format!("evidence/{run}/report.md"));
    assert!(report.contains(&format!("The same content went forward and back before: `{rehearsal}`.")), "{report}");
    place.call(&["verify", &format!("evidence/{run}")]).done();
}
