//! Checks a bundle without network or database, and names the first thing that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgrunbook_document::StepId;
use serde_json::Value;

use super::{Envelope, NAMESPACE, PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT, STATEMENT_TYPE, files, pae, sha256};
use crate::approval;
use crate::journal::{Direction, Event, Outcome, Sealed};
use crate::plan::Plan;
use crate::sign_off;
use crate::signers;
use crate::state::{Overriding, RunState};

/// What was found to be true of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub run: String,
    pub title: String,
    pub environment: String,
    pub operator: String,
    /// `completed`, `rolled back`, `not ended`.
    pub ended: String,
    pub events: u64,
    pub files: usize,
    /// The fingerprint of the key that signed it; `None`: it is not signed.
    pub signed_by: Option<String>,
    /// The person whom `allowed_signers` names for that key.
    pub signer: Option<String>,
    /// Who approved it. Without `allowed_signers`: whom the approvals name.
    pub approvals: Vec<String>,
    /// Demands of the environment that somebody went on without, each open to be reviewed or closed by somebody else.
    pub reviews: Vec<Overriding>,
    /// Who signed off what happened, in which role: `dba: olga`.
    pub sign_offs: Vec<String>,
    /// The version of pgrunbook that wrote it, if it is another: then the reports were not compared with the journal.
    pub other_version: Option<String>,
}

/// What is wrong with a bundle: the file, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct Wrong {
    pub file: String,
    pub why: String,
}

fn wrong(file: &str, why: impl Into<String>) -> Wrong {
    Wrong { file: file.to_owned(), why: why.into() }
}

/// Verifies a bundle.
///
/// `allowed_signers` is the text of such a file: with it the bundle must be signed, by somebody it allows, and approvals
/// must be by people whom it allows. Without it signatures are checked by the keys that they carry.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(folder: &Path, allowed_signers: Option<&str>) -> Result<Verdict, Wrong> {
    let found = read(folder, folder)?;
    let (statement, signed_by, signer) = statement(&found, allowed_signers)?;
    digests(&found, &statement)?;
    let events = journal(&found)?;
    let state = RunState::fold(&events).map_err(|broken| wrong("journal.jsonl", broken.to_string()))?;
    let run = statement["predicate"]["run"].as_str().unwrap_or_default().to_owned();
    let head = &statement["predicate"]["journal"];
    if head["head"] != state.head.hash.as_str() || head["events"] != state.head.seq {
        return Err(wrong("journal.jsonl", "its last event is not the one that the statement names"));
    }
    plan(&found, &state)?;
    let approvals = approvals(&state, &events, allowed_signers)?;
    let sign_offs = sign_offs(&run, &state, &events, allowed_signers)?;
    closings(&run, &state, allowed_signers)?;
    steps(&state, &events)?;
    // Everything else is made of the journal: a report that says something else was changed, or is of another version.
    let other_version = Some(state.plan.engine.clone()).filter(|version| version != env!("CARGO_PKG_VERSION"));
    if other_version.is_none() {
        for (name, text) in files(&run, &state, &events, &rehearsals(&statement)) {
            if found.get(&name).is_none_or(|bytes| *bytes != text.as_bytes()) {
                return Err(wrong(&name, "it does not say what the journal says"));
            }
        }
    }
    Ok(Verdict {
        run,
        title: state.plan.title.clone(),
        environment: state.plan.environment.clone(),
        operator: state.operator.clone(),
        ended: super::word(&state).to_owned(),
        events: state.head.seq,
        files: found.len(),
        signed_by,
        signer,
        approvals,
        reviews: state.overrides.clone(),
        sign_offs,
        other_version,
    })
}

/// Every file, by its path in the folder.
pub(super) fn read(root: &Path, folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, Wrong> {
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let unreadable =
        |path: &Path, error: &std::io::Error| wrong(&path.display().to_string(), format!("cannot be read: {error}"));
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let entry = entry.map_err(|error| unreadable(folder, &error))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| unreadable(&path, &error))?;
        if kind.is_dir() {
            files.extend(read(root, &path)?);
        } else if kind.is_file() {
            files.insert(shown(&path), std::fs::read(&path).map_err(|error| unreadable(&path, &error))?);
        } else {
            return Err(wrong(&shown(&path), "it is no ordinary file"));
        }
    }
    Ok(files)
}

/// The files that a statement names, whoever signed it.
pub(super) fn named(statement: &[u8]) -> BTreeSet<String> {
    let payload = serde_json::from_slice::<Envelope>(statement).ok().and_then(|it| STANDARD.decode(it.payload).ok());
    let statement: Value = payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default();
    let subjects = statement["subject"].as_array().map(Vec::as_slice).unwrap_or_default();
    subjects.iter().filter_map(|subject| subject["name"].as_str().map(str::to_owned)).collect()
}

type Signed = (Value, Option<String>, Option<String>);

/// The rehearsals that the statement names: they are runs of their own, and not in this journal.
fn rehearsals(statement: &Value) -> Vec<String> {
    let named = statement["predicate"]["rehearsals"].as_array().map(Vec::as_slice).unwrap_or_default();
    named.iter().filter_map(|run| run.as_str()).map(str::to_owned).collect()
}

fn statement(found: &BTreeMap<String, Vec<u8>>, allowed_signers: Option<&str>) -> Result<Signed, Wrong> {
    let bad = |why: &str| wrong(STATEMENT, why);
    let bytes = found.get(STATEMENT).ok_or_else(|| bad("it is missing: this is no evidence bundle"))?;
    let envelope: Envelope =
        serde_json::from_slice(bytes).map_err(|error| bad(&format!("it cannot be read: {error}")))?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(bad("its payload is of another type"));
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| bad("its payload is not base64"))?;
    let (mut signed_by, mut signer) = (None, None);
    for signature in &envelope.signatures {
        let armored = STANDARD.decode(&signature.sig).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let armored = armored.ok_or_else(|| bad("its signature is not base64"))?;
        let key = signers::check(NAMESPACE, &pae(&payload), &armored).map_err(|error| bad(&error.to_string()))?;
        if key != signature.keyid {
            return Err(bad("its signature is by another key than it names"));
        }
        if let Some(allowed) = allowed_signers {
            signer = principals(allowed).into_iter().find(|principal| {
                signers::verify(NAMESPACE, &pae(&payload), &armored, principal, allowed, jiff::Timestamp::now()).is_ok()
            });
            if signer.is_none() {
                return Err(bad(&format!("nobody in allowed_signers signs with its key ({key})")));
            }
        }
        signed_by = Some(key);
    }
    if allowed_signers.is_some() && signed_by.is_none() {
        return Err(bad("it is not signed"));
    }
    let statement: Value = serde_json::from_slice(&payload).map_err(|_| bad("its payload is not JSON"))?;
    if statement["_type"] != STATEMENT_TYPE || statement["predicateType"] != PREDICATE_TYPE {
        return Err(bad("it is a statement of another kind"));
    }
    Ok((statement, signed_by, signer))
}

/// The principals that stand without patterns in `allowed_signers`.
fn principals(allowed: &str) -> BTreeSet<String> {
    let lines = allowed.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_whitespace().next())
        .flat_map(|word| word.trim_matches('"').split(','))
        // A pattern's own text matches it.
        .filter(|name| !name.starts_with('!'))
        .map(str::to_owned)
        .collect()
}

fn digests(found: &BTreeMap<String, Vec<u8>>, statement: &Value) -> Result<(), Wrong> {
    let mut named = BTreeSet::from([STATEMENT.to_owned()]);
    for subject in statement["subject"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let name = subject["name"].as_str().unwrap_or_default().to_owned();
        let bytes = found.get(&name).ok_or_else(|| wrong(&name, "it is missing"))?;
        if subject["digest"]["sha256"] != sha256(bytes).as_str() {
            return Err(wrong(&name, "it was changed: its digest is not the one in the statement"));
        }
        named.insert(name);
    }
    match found.keys().find(|name| !named.contains(*name)) {
        Some(stranger) => Err(wrong(stranger, "it is not named by the statement")),
        None => Ok(()),
    }
}

fn journal(found: &BTreeMap<String, Vec<u8>>) -> Result<Vec<Sealed>, Wrong> {
    let bad = |why: String| wrong("journal.jsonl", why);
    let bytes = found.get("journal.jsonl").ok_or_else(|| bad("it is missing".to_owned()))?;
    let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not text".to_owned()))?;
    let mut events: Vec<Sealed> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let sealed: Sealed =
            serde_json::from_str(line).map_err(|error| bad(format!("line {} cannot be read: {error}", number + 1)))?;
        if !sealed.follows(events.last()) {
            return Err(bad(format!("the chain breaks at line {}", number + 1)));
        }
        events.push(sealed);
    }
    Ok(events)
}

fn plan(found: &BTreeMap<String, Vec<u8>>, state: &RunState) -> Result<(), Wrong> {
    let bytes = found.get("plan.json").ok_or_else(|| wrong("plan.json", "it is missing"))?;
    let plan: Plan =
        serde_json::from_slice(bytes).map_err(|error| wrong("plan.json", format!("it cannot be read: {error}")))?;
    if !plan.is_whole() {
        return Err(wrong("plan.json", "its digests are not those of its content"));
    }
    if plan != *state.plan {
        return Err(wrong("plan.json", "it is not the plan that the journal begins with"));
    }
    let runbook = found.get("runbook.md").ok_or_else(|| wrong("runbook.md", "it is missing"))?;
    let frozen = plan.sources.first().map_or("", |source| source.text.as_str());
    if runbook != frozen.as_bytes() {
        return Err(wrong("runbook.md", "it is not the runbook that was planned"));
    }
    Ok(())
}

/// Signatures, that nobody approved their own run, and that a step which cannot be taken back waited for an approval.
fn approvals(state: &RunState, events: &[Sealed], allowed_signers: Option<&str>) -> Result<Vec<String>, Wrong> {
    let mut names = Vec::new();
    let one_way = state.plan.undo_coverage().one_way;
    for sealed in events {
        let approval = match &sealed.event {
            Event::Approved { approval } => approval,
            Event::Intent { step, direction: Direction::Forward, .. }
                if names.is_empty() && !state.rehearsal && one_way.contains(step) =>
            {
                let why = format!("step `{step}` cannot be taken back, and began without an approval");
                return Err(wrong("journal.jsonl", why));
            }
            _ => continue,
        };
        let bad = |why: String| wrong("journal.jsonl", format!("the approval by {}: {why}", approval.principal));
        if approval.plan_digest != state.plan.plan_digest {
            return Err(bad("it is for another plan".to_owned()));
        }
        if approval.principal == state.operator {
            return Err(bad("the operator approved their own run".to_owned()));
        }
        let text = approval::text(&approval.plan_digest);
        let key = match allowed_signers {
            Some(allowed) => signers::verify(
                approval::NAMESPACE,
                text.as_bytes(),
                &approval.signature,
                &approval.principal,
                allowed,
                sealed.at,
            ),
            None => signers::check(approval::NAMESPACE, text.as_bytes(), &approval.signature),
        };
        let key = key.map_err(|error| bad(error.to_string()))?;
        if key != approval.key {
            return Err(bad("it is by another key than it names".to_owned()));
        }
        names.push(approval.principal.clone());
    }
    Ok(names)
}

/// Signatures over what had happened when the step began, and that a step which says who signed says what the journal says.
/// That a sign-off names the right head, the fold has seen to.
fn sign_offs(
    run: &str,
    state: &RunState,
    events: &[Sealed],
    allowed_signers: Option<&str>,
) -> Result<Vec<String>, Wrong> {
    let mut given: Vec<(&StepId, [String; 3])> = Vec::new();
    for sealed in events {
        match &sealed.event {
            Event::SignedOff { sign_off } => {
                let bad =
                    |why: String| wrong("journal.jsonl", format!("the sign-off by {}: {why}", sign_off.principal));
                let digest = &state.plan.plan_digest;
                let key = match allowed_signers {
                    Some(allowed) => sign_off.verify(run, digest, allowed, sealed.at),
                    None => sign_off.check(run, digest),
                };
                let key = key.map_err(|error| bad(error.to_string()))?;
                if key != sign_off.key {
                    return Err(bad("it is by another key than it names".to_owned()));
                }
                given.push((&sign_off.step, [sign_off.role.clone(), sign_off.principal.clone(), key]));
            }
            Event::Outcome { step, outcome: Outcome::Done { evidence, .. }, .. } => {
                for counted in sign_off::counted(evidence) {
                    if !given.iter().any(|(of, given)| *of == step && *given == counted) {
                        let [role, principal, _] = counted;
                        let why =
                            format!("step `{step}` counted a sign-off by {principal} as {role}, and there is none");
                        return Err(wrong("journal.jsonl", why));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(given.into_iter().map(|(_, [role, principal, _])| format!("{role}: {principal}")).collect())
}

/// Signatures over what was overridden. That each closing is by another person, and of an item that was open, the fold has seen
/// to; one that is not signed says so.
fn closings(run: &str, state: &RunState, allowed_signers: Option<&str>) -> Result<(), Wrong> {
    for item in &state.overrides {
        let Some(closed) = &item.closed else { continue };
        let closing = &closed.closing;
        let bad = |why: String| wrong("journal.jsonl", format!("the review by {}: {why}", closing.by));
        let digest = &state.plan.plan_digest;
        let key = match allowed_signers {
            Some(allowed) => closing.verify(run, digest, item, allowed, closed.at),
            None => closing.check(run, digest, item),
        };
        if key.map_err(|error| bad(error.to_string()))? != closing.key {
            return Err(bad("it is by another key than it names".to_owned()));
        }
    }
    Ok(())
}

/// Every step that is done recorded something, and a run that went to its end left none out. That every outcome has
/// its intent and every line that was left out its reason, the fold has seen to.
fn steps(state: &RunState, events: &[Sealed]) -> Result<(), Wrong> {
    for sealed in events {
        match &sealed.event {
            Event::Outcome { step, outcome: Outcome::Done { evidence, recovered: false }, direction, .. }
                if evidence.summary.trim().is_empty() =>
            {
                let undo = if *direction == Direction::Back { "the undo of " } else { "" };
                return Err(wrong("journal.jsonl", format!("{undo}step `{step}` is done and recorded nothing")));
            }
            _ => {}
        }
    }
    if state.ended.is_some()
        && state.turned_back.is_none()
        && let Some(step) = state.plan.steps().find(|step| !state.is_done(&step.id))
    {
        return Err(wrong("journal.jsonl", format!("the run ended and step `{}` is not done", step.id)));
    }
    Ok(())
}
