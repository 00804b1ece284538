//! `approve`, `report` and `verify`.

use std::path::{Path, PathBuf};

use pgrunbook_engine::evidence::summary::review;
use pgrunbook_engine::evidence::verify::verify as verify_bundle;
use pgrunbook_engine::evidence::{Bundle, EvidenceError};
use pgrunbook_engine::state::Overriding;
use pgrunbook_engine::step::Approval;
use pgrunbook_engine::{Closing, People, Plan, approval, signers};
use pgrunbook_steps::Opened;
use serde_json::json;

use super::run::find;
use crate::app::App;
use crate::args::Output;
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// Signs the digest of a plan, or takes a signature that was made elsewhere.
///
/// `what` is a run or a saved plan. The signature is kept beside the journal, where `run` and `resume` find it.
pub async fn approve(app: &App, what: &str, key: Option<&Path>, signature: Option<&Path>) -> Result<u8, Failure> {
    let opened = app.open().await?;
    let plan = plan_of(app, &opened, what).await?;
    let text = approval::text(&plan.plan_digest);
    let Some(armored) = armored(app, approval::NAMESPACE, &text, key, signature)? else {
        let how = how_to_sign(approval::NAMESPACE, &text, "approve PLAN", "approval.txt");
        app.say(
            &format!("Read the plan, then sign exactly this text with your SSH key:\n\n{how}"),
            &json!({ "type": "approval", "plan": plan.plan_digest, "text": text }),
        );
        return Ok(exit::WAITING);
    };
    let principal = opened.engine.operator.principal.clone();
    let people = &opened.engine.people;
    must_name_signers(people, "approve")?;
    let approval = approval::approve(&plan, &principal, &armored, people, jiff::Timestamp::now()).map_err(|error| {
        Failure::unusable("approval", error.to_string())
            .help("say who you are with --as NAME, as allowed_signers has it")
    })?;
    let folder = folder(&opened, &plan.plan_digest);
    std::fs::create_dir_all(&folder)?;
    let text = serde_json::to_string_pretty(&approval).unwrap_or_default();
    let name: String =
        principal.chars().map(|c| if c.is_ascii_alphanumeric() || "-_@.".contains(c) { c } else { '_' }).collect();
    super::lint::write_whole(&folder.join(format!("{name}.json")), &text)?;
    app.say(
        &format!("Approved by {} ({}): plan {}", approval.principal, approval.key, plan.plan_digest),
        &json!({ "type": "approved", "by": approval.principal, "key": approval.key, "plan": plan.plan_digest }),
    );
    Ok(exit::DONE)
}

/// A signature over a text, by a key or made elsewhere; `None` where neither was given.
pub fn armored(
    app: &App,
    namespace: &str,
    text: &str,
    key: Option<&Path>,
    signature: Option<&Path>,
) -> Result<Option<String>, Failure> {
    Ok(match (key, signature) {
        (Some(key), _) => {
            let private = super::lint::read(app, key)?;
            let signed = signers::sign(namespace, text.as_bytes(), &private);
            Some(signed.map_err(|error| Failure::unusable("signature", error.to_string()))?)
        }
        (None, Some(path)) => Some(super::lint::read(app, path)?),
        (None, None) => None,
    })
}

/// The text to be signed, and the commands that do it.
pub fn how_to_sign(namespace: &str, text: &str, command: &str, file: &str) -> String {
    let text = text.trim_end();
    format!(
        "  {text}\n\nWith a key file:          pgrunbook {command} --as YOU --key ~/.ssh/id_ed25519\n\
         With an agent or hardware: printf '%s\\n' '{text}' > {file}\n                           \
         ssh-keygen -Y sign -f KEY -n {namespace} {file}\n                           \
         pgrunbook {command} --as YOU --signature {file}.sig"
    )
}

/// Without `allowed_signers` no signature can count.
pub fn must_name_signers(people: &People, what: &str) -> Result<(), Failure> {
    if people.allowed_signers.is_some() {
        return Ok(());
    }
    Err(Failure::unusable("signers", format!("the project names nobody who may {what}"))
        .help("write `allowed_signers = \"allowed_signers\"` under [project] in pgrunbook.toml, and one line `name ssh-ed25519 ...` for each person"))
}

async fn plan_of(app: &App, opened: &Opened, what: &str) -> Result<Plan, Failure> {
    let path = app.surroundings.cwd.join(what);
    if !path.is_file() {
        return Ok((*opened.engine.status(what).await?.state.plan).clone());
    }
    let text = super::lint::read(app, Path::new(what))?;
    let plan: Plan = serde_json::from_str(&text)
        .map_err(|error| Failure::unusable("plan", format!("{what} is no plan: {error}")))?;
    if !plan.is_whole() {
        return Err(Failure::unusable("moved", format!("{what} was edited: its digest is not that of its content")));
    }
    Ok(plan)
}

fn folder(opened: &Opened, plan_digest: &str) -> PathBuf {
    opened.project.root.join(".pgrunbook/approvals").join(plan_digest)
}

/// The approvals of a plan that are kept beside the journal. Whether they count is for the engine to say.
pub fn kept(opened: &Opened, plan: &Plan) -> Result<Vec<Approval>, Failure> {
    let folder = folder(opened, &plan.plan_digest);
    let mut approvals = Vec::new();
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path())?;
        let approval = serde_json::from_str(&text).map_err(|error| {
            Failure::unusable("approval", format!("{} cannot be read: {error}", entry.path().display()))
        })?;
        approvals.push(approval);
    }
    Ok(approvals)
}

/// Writes the evidence bundle of a run.
pub async fn report(app: &App, run: Option<&str>, out: Option<&Path>, key: Option<&Path>) -> Result<u8, Failure> {
    let opened = app.open().await?;
    let run = find(&opened.engine, run, false).await?.run;
    let bundle = bundle(app, &opened, &run, out, key).await?;
    if app.global.format == Output::Json {
        put(&json!({ "type": "evidence", "run": run, "folder": bundle.folder, "files": bundle.files, "signed_by": bundle.signed_by }).to_string());
        return Ok(exit::DONE);
    }
    put(&format!("{} files in {}", bundle.files.len() + 1, bundle.folder.display()));
    match bundle.signed_by {
        Some(key) => put(&format!("signed by {key}")),
        None => put("not signed: name a key with --key, or under [evidence] in pgrunbook.toml"),
    }
    put(&format!("report: {}", bundle.folder.join("report.html").display()));
    Ok(exit::DONE)
}

/// Writes the bundle of a run where the project wants it, signed by its key; or where and by what is given.
pub async fn bundle(
    app: &App,
    opened: &Opened,
    run: &str,
    out: Option<&Path>,
    key: Option<&Path>,
) -> Result<Bundle, Failure> {
    let folder = out.map_or_else(|| opened.project.evidence_dir.join(run), |out| app.surroundings.cwd.join(out));
    let key = match (key, &opened.project.evidence_key) {
        (Some(key), _) => Some(super::lint::read(app, key)?),
        (None, Some(reference)) => Some(opened.workplace.secret(reference)?),
        (None, None) => None,
    };
    opened.engine.report(run, &folder, key.as_deref()).await.map_err(|error| {
        let failure = Failure::unusable("evidence", error.to_string());
        match error {
            EvidenceError::NotABundle { .. } => failure.help("name another folder: --out DIR"),
            _ => failure,
        }
    })
}

/// Verifies a bundle, without network or database.
pub fn verify(app: &App, folder: &Path, signers: Option<&Path>) -> Result<u8, Failure> {
    let allowed = signers.map(|path| super::lint::read(app, path)).transpose()?;
    let verdict = match verify_bundle(&app.surroundings.cwd.join(folder), allowed.as_deref()) {
        Ok(verdict) => verdict,
        Err(wrong) => {
            let mut failure = Failure::unusable("evidence", format!("this bundle cannot be trusted: {wrong}"));
            failure.exit = exit::FAILED;
            return Err(failure);
        }
    };
    if app.global.format == Output::Json {
        put(&json!({
            "type": "verified", "run": verdict.run, "title": verdict.title, "environment": verdict.environment,
            "operator": verdict.operator, "ended": verdict.ended, "events": verdict.events, "files": verdict.files,
            "signed_by": verdict.signed_by, "signer": verdict.signer, "approvals": verdict.approvals, "sign_offs": verdict.sign_offs,
            "other_version": verdict.other_version,
            "reviews": verdict.reviews.iter().map(review).collect::<Vec<_>>(),
        })
        .to_string());
        return Ok(exit::DONE);
    }
    put(&format!("{}: {}, {} in {}", verdict.run, verdict.title, verdict.ended, verdict.environment));
    put(&format!("{} files and {} events are whole, and belong together", verdict.files, verdict.events));
    if let Some(version) = &verdict.other_version {
        put(&format!("written by pgrunbook {version}: what the reports say was not compared with the journal"));
    }
    let approvals = if verdict.approvals.is_empty() { "none".to_owned() } else { verdict.approvals.join(", ") };
    put(&format!("operator {}; approvals: {approvals}", verdict.operator));
    if !verdict.sign_offs.is_empty() {
        put(&format!("signed off: {}", verdict.sign_offs.join(", ")));
    }
    // With signers, what nobody signed settles nothing.
    let settled = |closing: &Closing| allowed.is_none() || closing.key.is_some();
    let (closed, open): (Vec<_>, Vec<_>) = verdict
        .reviews
        .iter()
        .map(|one| (one, one.closed.as_ref().map(|closed| &closed.closing)))
        .partition(|(_, closing)| closing.is_some_and(settled));
    let shown = |(one, closing): &(&Overriding, Option<&Closing>)| {
        let closing = closing.map_or_else(String::new, |closing| format!("; {closing}"));
        put(&format!("  {one}{closing}"));
    };
    if !open.is_empty() {
        put(&format!("{} to be reviewed:", open.len()));
        open.iter().for_each(shown);
    }
    if !closed.is_empty() {
        put(&format!("{} reviewed:", closed.len()));
        closed.iter().for_each(shown);
    }
    put(&match (verdict.signer, verdict.signed_by) {
        (Some(signer), Some(key)) => format!("signed by {signer} ({key})"),
        (None, Some(key)) => format!("signed by {key}; whose key that is, only `--signers allowed_signers` can tell"),
        _ => "not signed: whoever has the files could have made them".to_owned(),
    });
    Ok(exit::DONE)
}
