//! The evidence bundle: what a run was to do, who allowed it, what happened, so that an auditor can verify it offline.
//!
//! A folder: `runbook.md` and the includes (frozen), `plan.json`, `journal.jsonl` (chained), `approvals/*.sshsig`,
//! `sign-offs/*.sshsig`, `reviews/*.sshsig`, `checks/*.json`, `report.md`, `report.html`, and `statement.dsse.json`: an in-toto Statement
//! (<https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>) with the digest of every other file, in a DSSE
//! envelope (<https://github.com/secure-systems-lab/dsse/blob/master/envelope.md>) whose signature is an SSHSIG.

pub mod chart;
mod demands;
pub mod matrix;
mod picture;
mod report;
pub mod summary;
pub mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgrunbook_document::StepId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::{Direction, EndState, Event, Outcome, Sealed};
use crate::signers::{self, SignatureError};
use crate::state::RunState;

/// What a bundle's signature is made for.
pub const NAMESPACE: &str = "pgrunbook-evidence";

/// The file that holds the statement.
pub const STATEMENT: &str = "statement.dsse.json";

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "urn:pgrunbook:run:v1";

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub folder: PathBuf,
    /// Files by their path in the folder, with their SHA-256 in hex. The statement is not among them.
    pub files: BTreeMap<String, String>,
    /// The fingerprint of the key that signed it.
    pub signed_by: Option<String>,
}

/// Why no bundle was written.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{path} cannot be written: {why}")]
    File { path: String, why: String },
    #[error("{folder} is not replaced: {file} there is not of an evidence bundle")]
    NotABundle { folder: String, file: String },
    #[error("the bundle cannot be signed: {0}")]
    Signature(#[from] SignatureError),
}

/// An envelope around a statement.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Signature {
    /// The fingerprint of the key.
    keyid: String,
    /// The armored SSHSIG, in base64.
    sig: String,
}

/// DSSE's pre-authentication encoding: what is signed.
fn pae(payload: &[u8]) -> Vec<u8> {
    let mut text = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    text.extend_from_slice(payload);
    text
}

impl Engine {
    /// Writes the evidence of a run into `folder`. `key`: a private key in OpenSSH's format, not encrypted.
    ///
    /// A bundle that is there already is replaced as a whole, once the new one is written.
    ///
    /// # Errors
    /// If the run is broken, the key cannot sign, the folder cannot be written, or it holds anything but a bundle.
    pub async fn report(&self, run: &str, folder: &Path, key: Option<&str>) -> Result<Bundle, EvidenceError> {
        let events = self.journal.read(run).await.map_err(EngineError::from)?;
        let state = self.status(run).await?.state;
        // Those that came later tested nothing of this run.
        let mut rehearsals = Vec::new();
        for rehearsal in self.rehearsals(&state.plan.content_digest).await? {
            let begun = self.journal.read(&rehearsal).await.map_err(EngineError::from)?.first().map(|event| event.at);
            if begun < events.first().map(|event| event.at) {
                rehearsals.push(rehearsal);
            }
        }
        let files = files(run, &state, &events, &rehearsals);
        let statement = statement(run, &state, &files, &rehearsals);
        let payload = statement.to_string();
        let mut signatures = Vec::new();
        if let Some(key) = key {
            let armored = signers::sign(NAMESPACE, &pae(payload.as_bytes()), key)?;
            let keyid = signers::check(NAMESPACE, &pae(payload.as_bytes()), &armored)?;
            signatures.push(Signature { keyid, sig: STANDARD.encode(armored) });
        }
        let signed_by = signatures.first().map(|signature| signature.keyid.clone());
        let envelope =
            Envelope { payload_type: PAYLOAD_TYPE.to_owned(), payload: STANDARD.encode(payload), signatures };
        let envelope = pretty(&serde_json::to_value(&envelope).expect("texts"));
        replaceable(folder)?;
        // Beside it first: neither a full disk nor a crash leaves half a bundle in place of a whole one.
        let beside = beside(folder)?;
        remove(&beside)?;
        for (name, text) in &files {
            write(&beside.join(name), text)?;
        }
        write(&beside.join(STATEMENT), &envelope)?;
        remove(folder)?;
        std::fs::rename(&beside, folder).map_err(|error| cannot_write(folder, &error))?;
        let files = files.into_iter().map(|(name, text)| (name, sha256(text.as_bytes()))).collect();
        Ok(Bundle { folder: folder.to_owned(), files, signed_by })
    }
}

/// The files of a bundle but the statement, by name.
fn files(run: &str, state: &RunState, events: &[Sealed], rehearsals: &[String]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (number, source) in state.plan.sources.iter().enumerate() {
        files.insert(source_name(number, &source.path), source.text.clone());
    }
    files.insert("plan.json".to_owned(), pretty(&serde_json::to_value(&*state.plan).expect("a plan is data")));
    let lines = events.iter().map(|event| serde_json::to_string(event).expect("an event is data") + "\n");
    files.insert("journal.jsonl".to_owned(), lines.collect());
    for approval in &state.approvals {
        let name = free(&files, "approvals/", &plain(&approval.principal), ".sshsig");
        files.insert(name, approval.signature.clone());
    }
    for sign_off in &state.sign_offs {
        let name = plain(&format!("{}-{}", sign_off.step, sign_off.role));
        let name = free(&files, "sign-offs/", &name, ".sshsig");
        files.insert(name, sign_off.signature.clone());
    }
    for closing in state.overrides.iter().filter_map(|one| Some(&one.closed.as_ref()?.closing)) {
        if let Some(signature) = &closing.signature {
            let name = free(&files, "reviews/", &plain(&format!("{}-{}", closing.item, closing.by)), ".sshsig");
            files.insert(name, signature.clone());
        }
    }
    for (name, check) in checks(events) {
        let name = free(&files, "checks/", &name, ".json");
        files.insert(name, pretty(&check));
    }
    files.insert("report.md".to_owned(), report::markdown(run, state, events, rehearsals));
    files.insert("report.html".to_owned(), report::html(run, state, events, rehearsals));
    files
}

fn source_name(number: usize, path: &str) -> String {
    if number == 0 {
        return "runbook.md".to_owned();
    }
    format!("includes/{number}-{}", plain(path.rsplit('/').next().unwrap_or(path)))
}

/// The first free name: two names may be the same once they are [`plain`].
fn free(files: &BTreeMap<String, String>, folder: &str, name: &str, ending: &str) -> String {
    let numbered = (2..).map(|number| format!("{folder}{name}-{number}{ending}"));
    std::iter::once(format!("{folder}{name}{ending}"))
        .chain(numbered)
        .find(|name| !files.contains_key(name))
        .expect("numbers do not run out")
}

/// A name that is a file's name on every system.
fn plain(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@' | '.');
    let plain: String = name.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if plain.starts_with('.') { format!("_{plain}") } else { plain }
}

/// What each attempt recorded, by step, direction and attempt.
fn checks(events: &[Sealed]) -> Vec<(String, Value)> {
    let one = |sealed: &Sealed| {
        let Event::Outcome { step, direction, attempt, outcome } = &sealed.event else { return None };
        let undo = if *direction == Direction::Back { "undo-" } else { "" };
        let name = format!("{undo}{}.{attempt}", plain(step.as_str()));
        Some((
            name,
            json!({ "step": step, "direction": direction, "attempt": attempt, "at": sealed.at, "seq": sealed.seq, "outcome": outcome }),
        ))
    };
    events.iter().filter_map(one).collect()
}

fn statement(run: &str, state: &RunState, files: &BTreeMap<String, String>, rehearsals: &[String]) -> Value {
    let subjects: Vec<Value> = files
        .iter()
        .map(|(name, text)| json!({ "name": name, "digest": { "sha256": sha256(text.as_bytes()) } }))
        .collect();
    json!({
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "run": run,
            "engine": state.plan.engine,
            "environment": state.plan.environment,
            "content_digest": state.plan.content_digest,
            "plan_digest": state.plan.plan_digest,
            "operator": state.operator,
            "rehearsal": state.rehearsal,
            "rehearsals": rehearsals,
            "ended": state.ended,
            "journal": { "events": state.head.seq, "head": state.head.hash },
        },
    })
}

/// Where a run stands, in a word.
fn word(state: &RunState) -> &'static str {
    match state.ended {
        Some(EndState::Completed) => "completed",
        Some(EndState::RolledBack) => "rolled back",
        Some(EndState::Aborted) => "aborted",
        None => "not ended",
    }
}

/// When a step's attempt began and ended, forward or back: by the last outcome.
fn last_outcome<'e>(
    events: &'e [Sealed],
    step: &StepId,
    direction: Direction,
) -> Option<(&'e Sealed, &'e Outcome, Option<jiff::Timestamp>)> {
    let (at, sealed, outcome) = events.iter().enumerate().rev().find_map(|(at, sealed)| match &sealed.event {
        Event::Outcome { step: found, direction: way, outcome, .. } if found == step && *way == direction => {
            Some((at, sealed, outcome))
        }
        _ => None,
    })?;
    let begun = events[..at].iter().rev().find_map(|sealed| match &sealed.event {
        Event::Intent { step: found, direction: way, .. } if found == step && *way == direction => Some(sealed.at),
        _ => None,
    });
    Some((sealed, outcome, begun))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a value is data") + "\n"
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Whether a folder may be replaced: it is not there, is empty, or holds an evidence bundle and nothing else.
fn replaceable(folder: &Path) -> Result<(), EvidenceError> {
    if matches!(folder.try_exists(), Ok(false)) {
        return Ok(());
    }
    let stranger =
        |file: &str| EvidenceError::NotABundle { folder: folder.display().to_string(), file: file.to_owned() };
    let found = verify::read(folder, folder).map_err(|wrong| stranger(&wrong.file))?;
    let named = found.get(STATEMENT).map(|bytes| verify::named(bytes)).unwrap_or_default();
    match found.keys().find(|name| *name != STATEMENT && !named.contains(*name)) {
        Some(file) => Err(stranger(file)),
        None => Ok(()),
    }
}

/// Where a bundle is written before it takes its place.
fn beside(folder: &Path) -> Result<PathBuf, EvidenceError> {
    let name = folder.file_name().ok_or_else(|| EvidenceError::File {
        path: folder.display().to_string(),
        why: "it ends in no name".to_owned(),
    })?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".pgrunbook-partial");
    Ok(folder.with_file_name(beside))
}

fn remove(folder: &Path) -> Result<(), EvidenceError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(cannot_write(folder, &error)),
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), EvidenceError> {
    let written = match path.parent() {
        Some(folder) => std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text)),
        None => std::fs::write(path, text),
    };
    written.map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> EvidenceError {
    EvidenceError::File { path: path.display().to_string(), why: error.to_string() }
}
