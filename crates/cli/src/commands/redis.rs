//! `redis`: health, keys, deleting and proving; and `topology` on a Redis target.

use std::time::{SystemTime, UNIX_EPOCH};

use pgrunbook_engine::StepError;
use pgrunbook_steps::Workplace;
use pgrunbook_steps::isolation::Undecided;
use pgrunbook_steps::redis::access::{self, Plan};
use pgrunbook_steps::redis::prove::{Subject, prove};
use pgrunbook_steps::redis::{
    BATCH, Limits, Nodes, Prefix, RedisOptions, TIMEOUT, bounded_by, confirmation, connect, delete, gate, health, keys,
    subjects, topology_details,
};
use pgrunbook_steps::secret::Reference;
use pgrunbook_steps::workplace::Place;
use serde_json::json;

use crate::app::App;
use crate::args::{Output, RedisAction};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// Findings that a terminal shows; `--format json` has every trial.
const SHOWN: usize = 20;

pub async fn redis(app: &App, action: RedisAction) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    match action {
        RedisAction::Health { target, pings, max_p99, max_memory, max_lag, persistent } => {
            let (_, options) = place(&workplace, target.as_deref())?;
            let limits = Limits { max_p99, max_memory_percent: max_memory, max_lag, persistent, ..Limits::default() };
            look(app, options, pings, &limits).await
        }
        RedisAction::Keys { prefix, target, sample, show, batch } => {
            let (_, options) = place(&workplace, target.as_deref())?;
            let prefix = prefix_of(&prefix)?;
            let mut nodes = connect(options, TIMEOUT).await.map_err(StepError::from)?;
            let counted = count(app, &mut nodes, &prefix, (sample, show, batch)).await?;
            if app.global.format == Output::Json {
                let mut value = counted.json();
                value["type"] = json!("redis-keys");
                value["prefix"] = json!(prefix.as_str());
                put(&value.to_string());
            } else {
                put(&counted.summary(&prefix));
                counted.details().iter().for_each(|line| put(&format!("  {line}")));
            }
            Ok(exit::DONE)
        }
        RedisAction::Delete { prefix, target, confirm, at_most, separator } => {
            let (target, options) = place(&workplace, target.as_deref())?;
            app.refuse_if_protected("redis delete", "redis-delete = \"clear\"")?;
            let prefix = bounded_by(&prefix, separator)?;
            remove(app, &workplace, (target, options), &prefix, confirm.as_deref(), at_most).await
        }
        RedisAction::Prove { target, prefixes, others, allow_inconclusive } => {
            let (_, options) = place(&workplace, target.as_deref())?;
            let read = |texts: &[String]| texts.iter().map(|text| prefix_of(text)).collect::<Result<Vec<_>, _>>();
            let subjects = if prefixes.is_empty() {
                subjects(&access::load(workplace.root())?, &workplace)
            } else {
                vec![Subject {
                    user: options.user.clone().unwrap_or_else(|| "default".to_owned()),
                    // A user without a password takes any.
                    password: Some(options.password.clone().unwrap_or_else(|| "none".to_owned())),
                    prefixes: read(&prefixes)?,
                    reads: Vec::new(),
                    may: Vec::new(),
                }]
            };
            let undecided = if allow_inconclusive { Undecided::Allow } else { Undecided::Deny };
            try_all(app, options, &subjects, &read(&others)?, undecided).await
        }
    }
}

/// The named target, or the only Redis of the project.
fn place<'a>(workplace: &'a Workplace, target: Option<&str>) -> Result<(String, &'a RedisOptions), Failure> {
    if let Some(name) = target {
        return Ok((name.to_owned(), workplace.redis(name)?));
    }
    let found = workplace.places().iter().filter_map(|(name, place)| match place {
        Place::Redis(options) => Some((name.clone(), options)),
        _ => None,
    });
    let mut found: Vec<_> = found.collect();
    match (found.pop(), found.pop()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Failure::unusable("no-target", "the project has no Redis that can be used".to_owned())
            .help("pgrunbook.toml: [targets.cache] redis = \"env:REDIS_URL\"")),
        _ => Err(Failure::unusable("no-target", "the project has several Redis targets".to_owned())
            .help("say which one: --target NAME")),
    }
}

fn prefix_of(text: &str) -> Result<Prefix, Failure> {
    Prefix::parse(text).map_err(|why| Failure::unusable("redis-prefix", why))
}

async fn look(app: &App, options: &RedisOptions, pings: u32, limits: &Limits) -> Result<u8, Failure> {
    let nodes = health(options, pings, TIMEOUT).await.map_err(StepError::from)?;
    let faults: Vec<String> = nodes.iter().flat_map(|node| node.faults(limits)).collect();
    if app.global.format == Output::Json {
        let servers: Vec<_> = nodes.iter().map(|node| node.json()).collect();
        put(&json!({ "type": "redis-health", "servers": servers, "faults": faults }).to_string());
    } else {
        nodes.iter().for_each(|node| put(&node.line()));
        faults.iter().for_each(|fault| put(&format!("  ! {fault}")));
    }
    Ok(if faults.is_empty() { exit::DONE } else { exit::FAILED })
}

async fn count(
    app: &App,
    nodes: &mut Nodes,
    prefix: &Prefix,
    (sample, show, batch): (usize, usize, u32),
) -> Result<keys::Counted, Failure> {
    let cancel = app.cancel_on_signals();
    let how = keys::How { batch, sample, show, keep: None, cancel: &cancel, tell: &|_| {} };
    Ok(keys::count(nodes, prefix, how).await.map_err(StepError::from)?)
}

async fn remove(
    app: &App,
    workplace: &Workplace,
    (target, options): (String, &RedisOptions),
    prefix: &Prefix,
    confirm: Option<&str>,
    at_most: Option<u64>,
) -> Result<u8, Failure> {
    let wanted = confirmation(workplace.environment(), prefix, &target);
    let mut nodes = connect(options, TIMEOUT).await.map_err(StepError::from)?;
    let counted = count(app, &mut nodes, prefix, (0, 0, BATCH)).await?;
    if confirm != Some(wanted.as_str()) {
        let message = format!("this deletes {} keys, and nothing brings them back. Nothing was touched", counted.keys);
        return Err(Failure::unusable("confirm", message).help(format!("say --confirm '{wanted}'")));
    }
    if let Some(most) = at_most.filter(|most| counted.keys > *most) {
        let message = format!("{} keys begin with `{prefix}`, more than {most}. Nothing was touched", counted.keys);
        return Err(Failure::unusable("redis-too-many", message));
    }
    let cancel = app.cancel_on_signals();
    let how = delete::How { batch: BATCH, keep: None, counted: None, cancel: &cancel, tell: &|_| {} };
    let deleted = delete::delete(&mut nodes, prefix, how).await;
    let deleted = deleted.map_err(|cut| {
        let error = StepError::from(cut.fault);
        let message = format!("{}; {} keys are deleted, and stay so", error.message, cut.deleted);
        StepError { message, ..error }
    })?;
    if app.global.format == Output::Json {
        put(&json!({
            "type": "redis-deleted", "prefix": prefix.as_str(), "deleted": deleted.keys, "left_none": !deleted.is_written
        })
        .to_string());
    } else {
        put(&format!("{} keys that begin with `{prefix}` are deleted.", deleted.keys));
        if deleted.is_written {
            put("  ! others go on writing keys there");
        }
    }
    Ok(exit::DONE)
}

async fn try_all(
    app: &App,
    options: &RedisOptions,
    subjects: &[Subject],
    others: &[Prefix],
    undecided: Undecided,
) -> Result<u8, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let nonce = format!("pgrunbook:{}:{now:x}", app.surroundings.pid);
    let proof = prove(options, subjects, others, &nonce, TIMEOUT).await.map_err(StepError::from)?;
    if app.global.format == Output::Json {
        let mut value = proof.json();
        value["type"] = json!("redis-proof");
        put(&value.to_string());
    } else {
        put(&proof.summary());
        let findings = proof.findings();
        findings.iter().take(SHOWN).for_each(|line| put(&format!("  {line}")));
        if findings.len() > SHOWN {
            put(&format!("  and {} more: --format json has them all", findings.len() - SHOWN));
        }
    }
    Ok(if gate(&proof, undecided).is_ok() { exit::DONE } else { exit::FAILED })
}

/// `topology plan` on a Redis target.
pub async fn plan(app: &App, workplace: &Workplace, options: &RedisOptions, check: bool) -> Result<u8, Failure> {
    let password = |reference: &Reference| workplace.secret(reference);
    let plan = access::plan(options, &access::load(workplace.root())?, &password, TIMEOUT).await?;
    show(app, &plan);
    Ok(if check && !plan.orders.is_empty() { exit::FAILED } else { exit::DONE })
}

/// `topology apply` on a Redis target.
pub async fn apply(app: &App, workplace: &Workplace, options: &RedisOptions, dry_run: bool) -> Result<u8, Failure> {
    if dry_run {
        return plan(app, workplace, options, false).await;
    }
    app.refuse_if_protected("topology apply", "topology = \"users\"")?;
    let password = |reference: &Reference| workplace.secret(reference);
    let declared = access::load(workplace.root())?;
    let applied = access::apply(options, &declared, &password, TIMEOUT, &mut |_| Ok(())).await?;
    show(app, &applied.plan);
    if app.global.format != Output::Json {
        put(match (applied.plan.orders.len(), applied.saved.len()) {
            (0, _) => "Nothing was changed.",
            (_, 0) => "Applied, in memory alone: no `aclfile` is set.",
            _ => "Applied, and saved.",
        });
    }
    Ok(exit::DONE)
}

fn show(app: &App, plan: &Plan) {
    let rules = topology_details(plan);
    if app.global.format == Output::Json {
        put(&json!({
            "type": "redis-access", "rules": rules, "warnings": plan.warnings, "foreign": plan.foreign
        })
        .to_string());
        return;
    }
    rules.iter().for_each(|line| put(line));
    if rules.is_empty() {
        put("Every user is as declared.");
    }
    plan.warnings.iter().for_each(|line| put(&format!("  ! {line}")));
    plan.foreign.iter().for_each(|user| put(&format!("  user `{user}` is not declared, and stays as it is")));
}
