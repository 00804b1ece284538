//! A release that four people sign off, with keys of `ssh-keygen`.

use crate::place::Place;
use crate::proof::key;

const PROJECT: &str = "[project]
allowed_signers = \"allowed_signers\"

[targets.main]
url = \"env:DATABASE_URL\"

[people]
dba = [\"olga\"]
security = [\"sam\", \"olga\"]
";

const RUNBOOK: &str = "# Release

## Change

```sql step
-- apply: change    target: main    undo: none: a test
CREATE TABLE released ();
```

## Sign-off

```toml step
sign-off = \"release\"
roles = [\"dba\", \"security\"]
```
";

async fn place() -> Place {
    let place = Place::new().await;
    for name in ["olga", "sam", "eve"] {
        key(&place, name);
    }
    let line = |name: &str| format!("{name} {}", place.read(&format!("{name}.pub")));
    place.write("allowed_signers", &["olga", "sam", "eve"].map(line).concat());
    place.write("pgrunbook.toml", PROJECT);
    place.write("RUNBOOK.md", RUNBOOK);
    place
}

#[tokio::test]
async fn release_waits_until_each_role_has_signed_what_happened() {
    let place = place().await;
    let waits = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(waits.code, Some(3), "{}\n{}", waits.out, waits.err);
    let run = place.run_id();
    assert!(waits.out.contains(&format!("  pgrunbook sign-off {run}\n  pgrunbook resume {run}\n")), "{}", waits.out);
    let shown = place.call(&["sign-off", &run]);
    assert_eq!(shown.code, Some(3));
    assert!(
        shown.out.contains(&format!("pgrunbook sign-off of run {run}, step release, as security: plan ")),
        "{}",
        shown.out
    );

    let refused = |args: &[&str], why: &str| {
        let said = place.call(&[&["sign-off", &run], args].concat());
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.out);
        assert!(said.err.contains(why), "{args:?}: {}", said.err);
    };
    refused(&["--as", "eve", "--key", "eve"], "eve holds none of the roles that are missing: dba, security");
    refused(&["--as", "eve", "--role", "dba", "--key", "eve"], "eve does not hold the role `dba`");
    refused(&["--as", "olga", "--key", "olga"], "olga holds several of the roles that are missing");
    refused(&["--as", "sam", "--role", "owner", "--key", "sam"], "asks for no sign-off by `owner`");
    refused(&["--as", "olga", "--role", "dba", "--key", "eve"], "olga is not allowed to sign with this key");

    let signed = place.call(&["sign-off", "--as", "olga", "--role", "dba", "--key", "olga"]).done();
    assert!(signed.out.contains("Missing: security"), "{}", signed.out);
    refused(&["--as", "olga", "--key", "olga"], "each role needs its own person");
    let still = place.call(&["resume"]);
    assert_eq!(still.code, Some(3));
    assert!(still.out.contains("signed off by olga (dba); missing: security"), "{}", still.out);

    // Signed elsewhere, over the text that was printed.
    let text = place.call(&["sign-off", "--as", "sam", "--format", "json"]);
    let text: serde_json::Value = serde_json::from_str(&text.out).unwrap();
    place.write("text", text["text"].as_str().unwrap());
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "pgrunbook-sign-off", "-f"])
        .args([place.path("sam"), place.path("text")])
        .output()
        .unwrap();
    assert!(made.status.success());
    let signed = place.call(&["sign-off", "--as", "sam", "--signature", "text.sig"]).done();
    assert!(signed.out.contains("Everybody has signed."), "{}", signed.out);
    let done = place.call(&["resume"]).done();
    assert!(done.out.contains("✓ release  signed off by olga (dba), sam (security)"), "{}", done.out);
    let late = place.call(&["sign-off", &run, "--as", "sam", "--key", "sam"]);
    assert!(late.code == Some(2) && late.err.contains("waits for no sign-off"), "{}", late.err);

    key(&place, "auditor");
    place.call(&["report", &run, "--key", "auditor"]).done();
    let signers = format!("{}auditor {}", place.read("allowed_signers"), place.read("auditor.pub"));
    place.write("signers", &signers);
    let folder = format!("evidence/{run}");
    let verified = place.call(&["verify", &folder, "--signers", "signers"]).done();
    assert!(verified.out.contains("signed off: dba: olga, security: sam\n"), "{}", verified.out);
    place.write("signers", &signers.lines().filter(|line| !line.starts_with("sam")).collect::<Vec<_>>().join("\n"));
    let wrong = place.call(&["verify", &folder, "--signers", "signers"]);
    assert!(wrong.err.contains("the sign-off by sam: sam is not allowed to sign with this key"), "{}", wrong.err);
}

#[tokio::test]
async fn signature_of_who_lost_the_key_since_counts_no_more() {
    let place = place().await;
    assert_eq!(place.call(&["run", "RUNBOOK.md"]).code, Some(3));
    place.call(&["sign-off", "--as", "sam", "--key", "sam"]).done();
    place.call(&["sign-off", "--as", "olga", "--role", "dba", "--key", "olga"]).done();
    let whole = place.read("allowed_signers");
    place.write(
        "allowed_signers",
        &whole.lines().filter(|line| !line.starts_with("sam")).collect::<Vec<_>>().join("\n"),
    );
    let waits = place.call(&["resume"]);
    assert_eq!(waits.code, Some(3));
    assert!(waits.out.contains("signed off by olga (dba); missing: security"), "{}", waits.out);
    place.write("allowed_signers", &whole);
    place.call(&["resume"]).done();
}

#[tokio::test]
async fn sign_off_that_nobody_could_give_is_said_before_the_first_effect_and_a_rehearsal_asks_for_none() {
    let place = place().await;
    place.write("pgrunbook.toml", &PROJECT.replace("dba = [\"olga\"]\n", ""));
    let refused = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("nobody holds the role `dba`"), "{}", refused.err);
    assert_eq!(place.value("SELECT to_regclass('released') IS NULL").await, "t");
    let rehearsed = place.call(&["rehearse", "RUNBOOK.md"]).done();
    assert!(rehearsed.out.contains("✓ release  nothing is signed off in a rehearsal"), "{}", rehearsed.out);
}
