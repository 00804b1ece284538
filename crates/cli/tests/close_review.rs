//! `close-review`: what an override left to be reviewed, closed by somebody else, and shown wherever it was open.

use serde_json::Value;

use crate::place::{Place, Said};
use crate::promote::{NEVER, project, promote};
use crate::proof::key;

const FOUND: &str = "the fix was right, and payments went on";

/// A run in production that olga let begin outside of its window; who signs is bert. Its id.
async fn overridden() -> (Place, String) {
    let place = project(&format!("windows = [\"{NEVER}\"]\noverride_roles = [\"release-manager\"]")).await;
    let why = "the payment fix cannot wait, Olga decided";
    promote(&place, &["--as", "olga", "--override", "window", "--reason", why]).done();
    let run = production(&place, &["status"]).done().out.split_whitespace().next().unwrap().to_owned();
    (place, run)
}

fn production(place: &Place, args: &[&str]) -> Said {
    place.call(&[args, &["-e", "production"]].concat())
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"))
}

#[tokio::test]
async fn item_is_closed_by_the_signature_of_somebody_else() {
    let (place, run) = overridden().await;
    let close = |args: &[&str]| production(&place, &[&["close-review"], args].concat());
    let listed = close(&["--format", "json"]);
    assert_eq!(listed.code, Some(3), "{listed:?}");
    let item = json(&listed)["item"].to_string();
    assert_eq!((json(&listed)["demand"].as_str(), json(&listed)["closed"].is_null()), (Some("window"), true));
    let shown = close(&[&run]);
    assert!(shown.out.contains(&format!("!  {item:>3}  window overridden by olga")), "{}", shown.out);
    assert!(shown.out.contains(&format!("pgrunbook close-review {run} --item {item}")), "{}", shown.out);

    let refused = |args: &[&str], why: &str| {
        let said = close(args);
        assert_eq!(said.code, Some(2), "{args:?}: {said:?}");
        assert!(said.err.contains(why), "{args:?}: {}", said.err);
    };
    // By her own key, too: it is about who she is.
    key(&place, "olga");
    let signers = place.read("allowed_signers");
    place.write("allowed_signers", &format!("{signers}olga {}", place.read("olga.pub")));
    refused(&["--as", "olga", "--key", "olga", "--reason", FOUND], "olga overrode it, and somebody else reviews it");
    refused(&["--as", "bert", "--key", "bert", "--reason", "ok"], "\"ok\" does not say what was found");
    refused(&["--as", "bert", "--key", "olga", "--reason", FOUND], "bert is not allowed to sign with this key");
    refused(&["--item", "1", "--as", "bert", "--key", "bert", "--reason", FOUND], "is no review item");
    let text = close(&["--as", "bert", "--reason", FOUND, "--format", "json"]);
    assert_eq!(text.code, Some(3), "without a signature nothing is recorded: {text:?}");
    assert!(production(&place, &["status"]).out.contains("! to be reviewed"));

    // Signed elsewhere, over the text that was printed.
    place.write("text", json(&text)["text"].as_str().unwrap());
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "pgrunbook-review", "-f"])
        .args([place.path("bert"), place.path("text")])
        .output();
    assert!(made.unwrap().status.success());
    let closed = close(&["--as", "bert", "--signature", "text.sig", "--reason", FOUND]).done();
    assert!(closed.out.contains(&format!("closed by bert: {FOUND} (SHA256:")), "{}", closed.out);
    refused(&[&run, "--item", &item, "--as", "bert", "--key", "bert", "--reason", FOUND], "was closed before, by bert");
    let nothing = close(&[]).done();
    assert!(nothing.out.contains("no run in environment `production` has a review item that is open"), "{nothing:?}");

    let status = production(&place, &["status", &run]).done().out;
    assert!(status.contains("✓ reviewed: window overridden by olga") && !status.contains("to be reviewed"), "{status}");
    assert!(!production(&place, &["status"]).out.contains("to be reviewed"));
    let status = json(&production(&place, &["status", &run, "--format", "json"]));
    assert_eq!(status["reviews"][0]["closed"]["by"], "bert");
    assert!(production(&place, &["show", &run]).out.contains(&format!("review of event {item} closed by bert")));

    key(&place, "auditor");
    production(&place, &["report", &run, "--key", "auditor"]).done();
    let folder = format!("evidence/{run}");
    assert!(place.read(&format!("{folder}/report.md")).contains("- [x] window overridden by olga at "));
    place.write("signers", &format!("{signers}auditor {}", place.read("auditor.pub")));
    let verified = production(&place, &["verify", &folder, "--signers", "signers"]).done();
    assert!(verified.out.contains("1 reviewed:\n  window overridden by olga: "), "{}", verified.out);
    // Whose key is taken out of it did not sign.
    place.write("signers", &format!("auditor {}", place.read("auditor.pub")));
    let wrong = production(&place, &["verify", &folder, "--signers", "signers"]);
    assert!(wrong.err.contains("the review by bert: bert is not allowed to sign with this key"), "{}", wrong.err);
}

#[tokio::test]
async fn without_signers_it_is_a_word_and_says_so() {
    let (place, run) = overridden().await;
    let project = place.read("pgrunbook.toml").replace("allowed_signers = \"allowed_signers\"\n", "");
    place.write("pgrunbook.toml", &project);
    let own = production(&place, &["close-review", "--as", "olga", "--reason", FOUND]);
    assert_eq!(own.code, Some(2), "{own:?}");
    let with_key = production(&place, &["close-review", "--as", "bert", "--key", "bert", "--reason", FOUND]);
    assert_eq!(with_key.code, Some(2), "{with_key:?}");
    assert!(with_key.err.contains("the project names nobody who may close a review item"), "{}", with_key.err);
    let closed = production(&place, &["close-review", "--as", "bert", "--reason", FOUND, "--format", "json"]).done();
    assert_eq!((json(&closed)["by"].as_str(), json(&closed)["key"].is_null()), (Some("bert"), true));
    key(&place, "auditor");
    production(&place, &["report", &run, "--key", "auditor"]).done();
    let folder = format!("evidence/{run}");
    let verified = production(&place, &["verify", &folder]).done();
    assert!(verified.out.contains("1 reviewed:") && verified.out.contains("(not signed)"), "{}", verified.out);
    // With signers only a signature settles it.
    place.write("signers", &format!("auditor {}", place.read("auditor.pub")));
    let strict = production(&place, &["verify", &folder, "--signers", "signers"]).done();
    assert!(strict.out.contains("1 to be reviewed:") && strict.out.contains("(not signed)"), "{}", strict.out);
}
